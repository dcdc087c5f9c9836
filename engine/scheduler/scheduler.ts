/**
 * The only sender of native commands: one at a time, completions before chat before work ahead before indexing.
 *
 * Decode commands that wait go along with the one whose turn it is, where they share steps: on a GPU a step of several
 * sequences takes little longer than one alone. The steps of such a command are the fewest that one of them asked for.
 *
 * A command that comes back `interrupted` is parked in native code. Its job simply sends the same command again and
 * waits its turn, so nothing is computed twice. Which job goes first is decided here; what a job does, by the job.
 */

import { setMaxListeners } from "node:events";
import { Cancelled, EngineError } from "../errors";
import type { DecodedTask, DecodeResult, DecodeTask, NativeModel } from "../native/addon";
import { inOrder, mostUrgent, nextIndex, outranks, type JobKind } from "./queue";

export type { JobKind } from "./queue";

/** A running command that should park is reminded this often: it may not have started when it was first asked. */
const remindEveryMs = 5;

/** One piece of work: many commands, one signal that ends it. */
export interface Job {
  /** Looked at whenever it matters: work that nobody waited for is served as a request as soon as it becomes one. */
  readonly kind: JobKind;
  readonly signal: AbortSignal;
}

interface Entry {
  readonly job: Job;
  readonly kind: JobKind;
  readonly servedAt: number;
  readonly arrivedAt: number;
  readonly start: (model: NativeModel) => Promise<void>;
  readonly cancel: (reason: unknown) => void;
  /** Of a decode command, which may go along with others. */
  readonly decoding?: Decoding;
}

interface Decoding {
  readonly task: DecodeTask;
  readonly settle: (outcome: DecodedTask) => void;
}

export interface SchedulerOptions {
  readonly waitingMax: number;
  /** Sequences that share a step at most, at the moment; 1, and so by default, where none do. */
  readonly stepSequences?: () => number;
}

export class Scheduler {
  readonly #model: NativeModel;
  readonly #waitingMax: number;
  readonly #stepSequences: () => number;
  readonly #servedAt = new WeakMap<Job, number>();
  readonly #waiting: Entry[] = [];
  /** One, or decode commands that go together; empty when nothing runs. */
  #running: readonly Entry[] = [];
  #reminder: NodeJS.Timeout | undefined;
  #clock = 0;
  #closed = false;
  #idle: (() => void)[] = [];

  constructor(model: NativeModel, options: SchedulerOptions) {
    this.#model = model;
    this.#waitingMax = options.waitingMax;
    this.#stepSequences = options.stepSequences ?? (() => 1);
  }

  /** Commands that wait, the running one not counted. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** Kind of the work that runs now, for the status. */
  get running(): JobKind | undefined {
    return mostUrgent(this.#running.map((entry) => entry.kind));
  }

  /**
   * Sends one command when its turn comes. Rejects with Cancelled when the job's signal is aborted: at once while the
   * command waits, when it has parked while it runs.
   */
  run<T>(job: Job, command: (model: NativeModel) => Promise<T>): Promise<T> {
    return this.#enqueue(job, command, () => undefined);
  }

  /**
   * As `run` for the sequence's `decode`, but it may go along with others, and then it may take fewer steps than it asked for.
   */
  decode(job: Job, task: DecodeTask): Promise<DecodeResult> {
    const alone = (): Promise<DecodeResult> => task.sequence.decode(task.options);
    return this.#enqueue(job, alone, (resolve, reject) => ({
      task,
      settle: (outcome) => (outcome.kind === "decoded" ? resolve(outcome.result) : reject(outcome.error)),
    }));
  }

  #enqueue<T>(
    job: Job,
    command: (model: NativeModel) => Promise<T>,
    decodingOf: (resolve: (value: T) => void, reject: (reason: unknown) => void) => Decoding | undefined,
  ): Promise<T> {
    if (this.#closed)
      return Promise.reject(new EngineError("draining", "The engine is closing: try again in a moment."));
    if (job.signal.aborted) return Promise.reject(new Cancelled());
    if (this.#waiting.length >= this.#waitingMax) {
      return Promise.reject(new EngineError("internal", "Too many requests are waiting: try again in a moment."));
    }
    return new Promise<T>((resolve, reject) => {
      const onAbort = (): void => this.#abort(entry);
      const settle = (act: () => void): void => {
        job.signal.removeEventListener("abort", onAbort);
        act();
      };
      const succeed = (value: T): void => settle(() => (job.signal.aborted ? reject(new Cancelled()) : resolve(value)));
      const fail = (error: unknown): void => settle(() => reject(job.signal.aborted ? new Cancelled() : error));
      const decoding = decodingOf(succeed, fail);
      const entry: Entry = {
        job,
        get kind() {
          return job.kind;
        },
        servedAt: this.#servedAt.get(job) ?? 0,
        arrivedAt: ++this.#clock,
        start: (model) => invoke(command, model).then(succeed, fail),
        cancel: (reason) => settle(() => reject(reason)),
        ...(decoding === undefined ? {} : { decoding }),
      };
      job.signal.addEventListener("abort", onAbort, { once: true });
      this.#waiting.push(entry);
      this.#remind();
      this.#next();
    });
  }

  /**
   * Sends a short command that must happen whatever becomes of the request it belongs to, such as freeing a sequence.
   * It is served before everything else and never interrupted.
   */
  upkeep<T>(command: (model: NativeModel) => Promise<T>): Promise<T> {
    return this.run({ kind: "completion", signal: neverAborted }, command);
  }

  /** To be called when a job that may be waiting became more urgent. */
  reconsider(): void {
    this.#remind();
  }

  /** Resolves when nothing runs and nothing waits. */
  whenIdle(): Promise<void> {
    if (this.#running.length === 0 && this.#waiting.length === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  /** Refuses new commands, drops the waiting ones and waits for the running one to park. */
  async dispose(): Promise<void> {
    this.#closed = true;
    const reason = new EngineError("draining", "The engine is closing: try again in a moment.");
    for (const entry of this.#waiting.splice(0)) entry.cancel(reason);
    this.#remind();
    await this.whenIdle();
  }

  /** The books must balance: called by tests after every step. */
  checkIntegrity(): void {
    if (this.#waiting.length > this.#waitingMax) throw new Error("More commands wait than may");
    if (this.#running.length === 0 && this.#reminder !== undefined) throw new Error("A reminder outlived its command");
  }

  #next(): void {
    if (this.#running.length > 0) return;
    const index = nextIndex(this.#waiting);
    const entry = this.#waiting[index];
    if (entry === undefined) {
      for (const resolve of this.#idle.splice(0)) resolve();
      return;
    }
    this.#waiting.splice(index, 1);
    this.#running = [entry];
    this.#running = [entry, ...this.#takeCompanions(entry)];
    for (const { job } of this.#running) this.#servedAt.set(job, ++this.#clock);
    void this.#start(this.#running).then(() => {
      this.#running = [];
      this.#stopReminding();
      // The job that just ran may want to send its next command: it gets a chance to before another one is picked.
      setImmediate(() => this.#next());
    });
  }

  /** Decode commands that go along with `entry`: no longer waiting. */
  #takeCompanions(entry: Entry): readonly Entry[] {
    if (entry.decoding === undefined || !this.#waiting.some((other) => other.decoding !== undefined)) return [];
    const companions = inOrder(this.#waiting.filter((other) => other.decoding !== undefined)).slice(
      0,
      Math.max(0, this.#stepSequences() - 1),
    );
    for (const companion of companions) this.#waiting.splice(this.#waiting.indexOf(companion), 1);
    return companions;
  }

  async #start(entries: readonly Entry[]): Promise<void> {
    const decodings = entries.flatMap(({ decoding }) => decoding ?? []);
    if (decodings.length < 2) {
      await Promise.all(entries.map((entry) => entry.start(this.#model)));
      return;
    }
    const steps = Math.min(...decodings.map(({ task }) => task.options.steps));
    const tasks = decodings.map(({ task: { sequence, options } }) => ({ sequence, options: { ...options, steps } }));
    const together = (model: NativeModel): Promise<readonly DecodedTask[]> => model.decodeTogether({ tasks });
    const outcomes = await invoke(together, this.#model).catch((reason: unknown) =>
      decodings.map((): DecodedTask => ({ kind: "failed", error: asError(reason) })),
    );
    for (const [index, outcome] of outcomes.entries()) decodings[index]?.settle(outcome);
  }

  #abort(entry: Entry): void {
    const index = this.#waiting.indexOf(entry);
    if (index >= 0) {
      this.#waiting.splice(index, 1);
      entry.cancel(new Cancelled());
      return;
    }
    this.#remind();
  }

  /** Asks the running command to park, now and until it does, if there is a reason to. */
  #remind(): void {
    if (!this.#shouldPark()) return;
    this.#model.interrupt();
    this.#reminder ??= setInterval(() => {
      if (this.#shouldPark()) this.#model.interrupt();
      else this.#stopReminding();
    }, remindEveryMs);
  }

  #stopReminding(): void {
    clearInterval(this.#reminder);
    this.#reminder = undefined;
  }

  #shouldPark(): boolean {
    const running = this.running;
    if (running === undefined) return false;
    if (this.#closed || this.#running.some(({ job }) => job.signal.aborted)) return true;
    return this.#waiting.some((entry) => outranks(entry.kind, running));
  }
}

const neverAborted = new AbortController().signal;
setMaxListeners(0, neverAborted);

function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error(String(reason));
}

/** A command that throws before it returns a promise is a failed command like any other. */
async function invoke<T>(command: (model: NativeModel) => Promise<T>, model: NativeModel): Promise<T> {
  return command(model);
}
