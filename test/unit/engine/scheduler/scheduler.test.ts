import { afterEach, describe, expect, it } from "vitest";
import { Cancelled, EngineError } from "../../../../engine/errors";
import type {
  DecodedTask,
  DecodeOptions,
  DecodeResult,
  DecodeTask,
  NativeModel,
  NativeSequence,
} from "../../../../engine/native/addon";
import { Scheduler, type Job, type JobKind } from "../../../../engine/scheduler/scheduler";

/** A model whose only command takes until it is finished or interrupted, as the test says. */
class OneCommandModel {
  interrupts = 0;
  running = 0;
  runningMax = 0;
  #park: (() => void) | undefined;
  #finish: (() => void) | undefined;

  interrupt(): void {
    this.interrupts += 1;
    this.#park?.();
  }

  finish(): void {
    this.#finish?.();
  }

  work = (): Promise<{ interrupted: boolean }> => {
    this.running += 1;
    this.runningMax = Math.max(this.runningMax, this.running);
    return new Promise((resolve) => {
      const end = (interrupted: boolean) => () => {
        this.running -= 1;
        this.#park = this.#finish = undefined;
        resolve({ interrupted });
      };
      this.#park = end(true);
      this.#finish = end(false);
    });
  };
}

const open: Scheduler[] = [];

function setUp(waitingMax = 100) {
  const model = new OneCommandModel();
  const scheduler = new Scheduler(model as unknown as NativeModel, { waitingMax });
  open.push(scheduler);
  return { model, scheduler };
}

function job(kind: JobKind): Job & { stop(): void } {
  const controller = new AbortController();
  return { kind, signal: controller.signal, stop: () => controller.abort() };
}

const soon = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5));

afterEach(() => {
  for (const scheduler of open.splice(0)) scheduler.checkIntegrity();
});

describe("Scheduler", () => {
  it("has one native command under way at a time", async () => {
    const { model, scheduler } = setUp();
    const quick = async (): Promise<number> => {
      model.running += 1;
      model.runningMax = Math.max(model.runningMax, model.running);
      await soon();
      model.running -= 1;
      return 1;
    };
    const jobs = Array.from({ length: 12 }, (_, index) =>
      job((["completion", "chat", "indexing"] as const)[index % 3] ?? "chat"),
    );
    const results = await Promise.all(jobs.map((each) => scheduler.run(each, quick)));
    expect(results).toHaveLength(12);
    expect(model.runningMax).toBe(1);
  });

  it("serves work that was begun ahead as what it is now: at once when somebody waits", async () => {
    const { model, scheduler } = setUp();
    const order: string[] = [];
    let kind: JobKind = "ahead";
    const ahead: Job = {
      get kind() {
        return kind;
      },
      signal: new AbortController().signal,
    };
    const chat = job("chat");
    const first = scheduler.run(chat, model.work);
    const later = scheduler.run(ahead, async () => void order.push("ahead"));
    await soon();
    expect(model.interrupts).toBe(0);
    kind = "completion";
    scheduler.reconsider();
    expect(await first).toEqual({ interrupted: true });
    await Promise.all([scheduler.run(chat, async () => void order.push("chat")), later]);
    expect(order).toEqual(["ahead", "chat"]);
  });

  it("parks indexing when a completion comes, and lets it go on afterwards", async () => {
    const { model, scheduler } = setUp();
    const order: string[] = [];
    const index = job("indexing");
    const first = scheduler.run(index, model.work);
    await soon();
    const completion = scheduler.run(job("completion"), async () => void order.push("completion"));
    expect(await first).toEqual({ interrupted: true });
    const again = scheduler.run(index, () => {
      order.push("indexing again");
      return model.work();
    });
    await completion;
    await soon();
    model.finish();
    expect(await again).toEqual({ interrupted: false });
    expect(order).toEqual(["completion", "indexing again"]);
  });

  it("does not interrupt for work of the same or a lower rank", async () => {
    const { model, scheduler } = setUp();
    const running = scheduler.run(job("chat"), model.work);
    const later = [scheduler.run(job("chat"), async () => 1), scheduler.run(job("indexing"), async () => 2)];
    await soon();
    expect(model.interrupts).toBe(0);
    model.finish();
    expect(await running).toEqual({ interrupted: false });
    expect(await Promise.all(later)).toEqual([1, 2]);
  });

  it("lets equals take turns rather than finish one by one", async () => {
    const { scheduler } = setUp();
    const order: string[] = [];
    const many = async (name: string): Promise<void> => {
      const mine = job("chat");
      for (let step = 0; step < 3; step++) {
        await scheduler.run(mine, async () => {
          order.push(name);
          await soon();
        });
      }
    };
    await Promise.all([many("a"), many("b")]);
    expect(order).toEqual(["a", "b", "a", "b", "a", "b"]);
  });

  it("rejects a waiting command at once when its job is cancelled, without touching the running one", async () => {
    const { model, scheduler } = setUp();
    const running = scheduler.run(job("chat"), model.work);
    const cancelled = job("chat");
    const waiting = scheduler.run(cancelled, async () => 1);
    cancelled.stop();
    await expect(waiting).rejects.toBeInstanceOf(Cancelled);
    expect(model.interrupts).toBe(0);
    model.finish();
    await running;
  });

  it("parks the running command when its job is cancelled and is idle within 100 ms", async () => {
    const { model, scheduler } = setUp();
    const cancelled = job("indexing");
    const running = scheduler.run(cancelled, model.work);
    await soon();
    const at = performance.now();
    cancelled.stop();
    await expect(running).rejects.toBeInstanceOf(Cancelled);
    await scheduler.whenIdle();
    expect(performance.now() - at).toBeLessThan(100);
  });

  it("asks again when the command had not begun when it was first asked to park", async () => {
    const { model, scheduler } = setUp();
    const cancelled = job("chat");
    const running = scheduler.run(cancelled, async () => {
      await new Promise((resolve) => setTimeout(resolve, 30));
      return model.work();
    });
    cancelled.stop();
    await expect(running).rejects.toBeInstanceOf(Cancelled);
    expect(model.interrupts).toBeGreaterThan(1);
  });

  it("refuses what goes beyond the maximum, and the rest still runs", async () => {
    const { model, scheduler } = setUp(2);
    const running = scheduler.run(job("chat"), model.work);
    const waiting = [scheduler.run(job("chat"), async () => 1), scheduler.run(job("chat"), async () => 2)];
    await expect(scheduler.run(job("completion"), async () => 3)).rejects.toBeInstanceOf(EngineError);
    model.finish();
    await running;
    expect(await Promise.all(waiting)).toEqual([1, 2]);
  });

  it("passes a command's failure on to its caller alone", async () => {
    const { scheduler } = setUp();
    const failing = scheduler.run(job("chat"), () => {
      throw new Error("before it returned a promise");
    });
    const fine = scheduler.run(job("chat"), async () => 1);
    await expect(failing).rejects.toThrow("before it returned");
    expect(await fine).toBe(1);
  });

  it("when disposed drops what waits, parks what runs and refuses what comes", async () => {
    const { model, scheduler } = setUp();
    const running = scheduler.run(job("indexing"), model.work);
    const waiting = scheduler.run(job("indexing"), async () => 1);
    const refused = expect(waiting).rejects.toMatchObject({ kind: "draining" });
    await scheduler.dispose();
    await refused;
    expect(await running).toEqual({ interrupted: true });
    await expect(scheduler.run(job("chat"), async () => 1)).rejects.toMatchObject({ kind: "draining" });
  });
});

/** A model that only decodes: a command ends when the test says so, or is told to park. */
class DecodingModel {
  /** Names and steps of each command. */
  readonly commands: (readonly string[])[] = [];
  failure: Error | undefined;
  #end: ((interrupted: boolean) => void) | undefined;

  interrupt(): void {
    this.#end?.(true);
  }

  finish(): void {
    this.#end?.(false);
  }

  sequence(name: string): NativeSequence {
    const decode = async (options: DecodeOptions): Promise<DecodeResult> => {
      const [outcome] = await this.#run([{ name, options }]);
      if (outcome?.kind !== "decoded") throw new Error("There is no outcome");
      return outcome.result;
    };
    return { name, decode } as unknown as NativeSequence;
  }

  decodeTogether({ tasks }: { readonly tasks: readonly DecodeTask[] }): Promise<readonly DecodedTask[]> {
    return this.#run(
      tasks.map(({ sequence, options }) => ({ name: (sequence as unknown as { name: string }).name, options })),
    );
  }

  #run(tasks: readonly { readonly name: string; readonly options: DecodeOptions }[]): Promise<readonly DecodedTask[]> {
    if (this.#end !== undefined) throw new Error("Two commands at once");
    this.commands.push(tasks.map(({ name, options }) => `${name} ${options.steps}`));
    return new Promise((resolve, reject) => {
      this.#end = (interrupted) => {
        this.#end = undefined;
        if (this.failure !== undefined) return reject(this.failure);
        resolve(
          tasks.map(({ name, options }) =>
            name.startsWith("broken")
              ? { kind: "failed", error: new Error(`${name} failed`) }
              : { kind: "decoded", result: decoded(interrupted ? 0 : options.steps, interrupted) },
          ),
        );
      };
    });
  }
}

function decoded(count: number, interrupted: boolean): DecodeResult {
  const steps = Array.from({ length: count }, () => ({ token: 1, logprob: 0, top: [], selections: [] }));
  return {
    steps,
    stopped: false,
    interrupted,
    masses: [],
    attendedBlocks: 0,
    totalBlocks: 0,
    blocksRead: 0,
    blocksFetched: 0,
    drafted: 0,
    draftedRight: 0,
    shared: 0,
  };
}

function setUpDecoding(stepSequences: number) {
  const model = new DecodingModel();
  const scheduler = new Scheduler(model as unknown as NativeModel, {
    waitingMax: 100,
    stepSequences: () => stepSequences,
  });
  open.push(scheduler);
  const sampling = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };
  const decode = (of: Job, name: string, steps: number): Promise<DecodeResult> =>
    scheduler.decode(of, { sequence: model.sequence(name), options: { steps, sampling, stopIds: [] } });
  return { model, scheduler, decode };
}

describe("Decode commands", () => {
  it("go along with the one whose turn it is, whatever their kinds, and take the fewest steps asked for", async () => {
    const { model, decode } = setUpDecoding(8);
    const first = decode(job("chat"), "first", 4);
    const rest = [decode(job("ahead"), "ahead", 4), decode(job("chat"), "chat", 2), decode(job("chat"), "other", 4)];
    await soon();
    model.finish();
    expect((await first).steps).toHaveLength(4);
    await soon();
    model.finish();
    for (const result of await Promise.all(rest)) expect(result.steps).toHaveLength(2);
    expect(model.commands).toEqual([["first 4"], ["chat 2", "other 2", "ahead 2"]]);
  });

  it("go alone where no steps are shared, and no more together than share one", async () => {
    for (const [stepSequences, commands] of [
      [1, [["a 1"], ["b 1"], ["c 1"], ["d 1"]]],
      [2, [["a 1"], ["b 1", "c 1"], ["d 1"]]],
    ] as const) {
      const { model, decode } = setUpDecoding(stepSequences);
      const all = ["a", "b", "c", "d"].map((name) => decode(job("chat"), name, 1));
      for (let command = 0; command < commands.length; command++) {
        await soon();
        model.finish();
      }
      await Promise.all(all);
      expect(model.commands).toEqual(commands);
    }
  });

  it("do not take other commands along, nor hold up a completion's prefill", async () => {
    const { model, scheduler, decode } = setUpDecoding(8);
    const block = scheduler.run(job("chat"), soon);
    const chats = [decode(job("chat"), "a", 4), decode(job("chat"), "b", 4)];
    const order: string[] = [];
    const index = scheduler.run(job("indexing"), async () => void order.push("index"));
    await block;
    await soon();
    expect(model.commands).toEqual([["a 4", "b 4"]]);
    const prefill = scheduler.run(job("completion"), async () => void order.push("prefill"));
    for (const result of await Promise.all(chats)) expect(result).toMatchObject({ interrupted: true, steps: [] });
    await Promise.all([prefill, index]);
    expect(order).toEqual(["prefill", "index"]);
  });

  it("park together when one is cancelled, and the others go on", async () => {
    const { model, scheduler, decode } = setUpDecoding(8);
    const block = scheduler.run(job("chat"), soon);
    const cancelled = job("chat");
    const stays = job("chat");
    const one = decode(cancelled, "one", 4);
    const other = decode(stays, "other", 4);
    await block;
    await soon();
    expect(scheduler.running).toBe("chat");
    cancelled.stop();
    await expect(one).rejects.toBeInstanceOf(Cancelled);
    expect(await other).toMatchObject({ interrupted: true });
    const again = decode(stays, "other", 4);
    await soon();
    model.finish();
    expect((await again).steps).toHaveLength(4);
    expect(model.commands).toEqual([["one 4", "other 4"], ["other 4"]]);
  });

  it("fail each for itself, and all when their command does", async () => {
    const { model, scheduler, decode } = setUpDecoding(8);
    const block = scheduler.run(job("chat"), soon);
    const broken = expect(decode(job("chat"), "broken", 1)).rejects.toThrow("broken failed");
    const fine = decode(job("chat"), "fine", 1);
    await block;
    await soon();
    model.finish();
    expect((await fine).steps).toHaveLength(1);
    await broken;
    model.failure = new Error("The model was disposed.");
    const second = scheduler.run(job("chat"), soon);
    const both = ["a", "b"].map((name) => expect(decode(job("chat"), name, 1)).rejects.toThrow("disposed"));
    await second;
    await soon();
    model.finish();
    await Promise.all(both);
    await scheduler.whenIdle();
  });
});
