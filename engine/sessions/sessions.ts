/**
 * Which models are loaded. A model is loaded when it is first needed, shared by all who want the same, and let go of
 * when another is wanted and nobody uses it.
 */

import { Cancelled, toEngineError } from "../errors";
import type { Log } from "../log";
import type { ModelRegistry, ResolvedModel } from "../models/registry";
import type { EngineSettings } from "../protocol";
import { abortable } from "../util/abortable";
import type { Session } from "./session";

/** What a session depends on of the settings. */
export type ModelChoice = Pick<EngineSettings, "model" | "threads" | "memoryGigabytes" | "diskGigabytes">;

export interface SessionsOptions {
  readonly registry: Pick<ModelRegistry, "resolve">;
  readonly open: (resolved: ResolvedModel, choice: ModelChoice) => Promise<Session>;
  readonly log: Log;
  /** What is loaded, or the problem with it, changed. */
  readonly onChange: () => void;
}

interface Holder {
  readonly key: string;
  readonly opening: Promise<Session>;
  session: Session | undefined;
  users: number;
  usedAt: number;
}

/** More models than this are in memory only while all of them are in use. */
const sessionsMax = 1;

export class Sessions {
  readonly #options: SessionsOptions;
  readonly #holders = new Map<string, Holder>();
  #clock = 0;
  /** By path of the model. */
  readonly #problems = new Map<string, string>();
  #closed = false;

  constructor(options: SessionsOptions) {
    this.#options = options;
  }

  /** Why the model in `path` could not be loaded the last time it was wanted; "" when it could. */
  problemOf(path: string): string {
    return this.#problems.get(path) ?? "";
  }

  get loaded(): readonly Session[] {
    return [...this.#holders.values()].map(({ session }) => session).filter((session) => session !== undefined);
  }

  get loading(): boolean {
    return [...this.#holders.values()].some(({ session }) => session === undefined);
  }

  /** Runs `work` with the chosen model, which stays loaded at least until it is done. */
  async use<T>(choice: ModelChoice, signal: AbortSignal, work: (session: Session) => Promise<T>): Promise<T> {
    const holder = await this.#hold(choice);
    try {
      const session = await abortable(holder.opening, signal);
      return await work(session);
    } finally {
      holder.users -= 1;
      this.#letGo();
    }
  }

  /** Runs `work` with the chosen model if that is loaded; loads nothing. */
  async useLoaded(choice: ModelChoice, work: (session: Session) => Promise<void>): Promise<void> {
    const { path } = await this.#options.registry.resolve(choice.model);
    if (this.#holders.get(keyOf(path, choice))?.session === undefined) return;
    await this.use(choice, new AbortController().signal, work);
  }

  async dispose(): Promise<void> {
    this.#closed = true;
    const holders = [...this.#holders.values()];
    this.#holders.clear();
    for (const { opening } of holders) await (await opening.catch(() => undefined))?.dispose();
  }

  async #hold(choice: ModelChoice): Promise<Holder> {
    const resolved = await this.#options.registry.resolve(choice.model);
    if (this.#closed) throw new Cancelled();
    const key = keyOf(resolved.path, choice);
    const known = this.#holders.get(key);
    if (known !== undefined) {
      known.users += 1;
      known.usedAt = ++this.#clock;
      return known;
    }
    const holder: Holder = {
      key,
      opening: this.#open(key, resolved, choice),
      session: undefined,
      users: 1,
      usedAt: ++this.#clock,
    };
    this.#holders.set(key, holder);
    holder.opening.then(
      (session) => {
        holder.session = session;
        this.#options.onChange();
      },
      () => undefined,
    );
    this.#options.onChange();
    return holder;
  }

  async #open(key: string, resolved: ResolvedModel, choice: ModelChoice): Promise<Session> {
    try {
      // What nobody uses goes first, so that two models are not in memory at once without need.
      await Promise.all(this.#idle().map((holder) => this.#close(holder)));
      const session = await this.#options.open(resolved, choice);
      this.#problems.delete(resolved.path);
      this.#options.log.info(`Loaded ${resolved.id} on ${session.info.device}`);
      return session;
    } catch (error) {
      this.#holders.delete(key);
      throw this.#failed(resolved, error);
    }
  }

  #failed(resolved: ResolvedModel, error: unknown): Error {
    const failure = toEngineError(error);
    this.#problems.set(resolved.path, failure.message);
    this.#options.log.warn(`${resolved.id} could not be loaded`, error);
    this.#options.onChange();
    return failure;
  }

  #letGo(): void {
    const idle = this.#idle().sort((a, b) => a.usedAt - b.usedAt);
    const tooMany = this.#holders.size - sessionsMax;
    for (const holder of idle.slice(0, Math.max(0, tooMany))) void this.#close(holder);
  }

  #idle(): Holder[] {
    return [...this.#holders.values()].filter(({ users, session }) => users === 0 && session !== undefined);
  }

  async #close(holder: Holder): Promise<void> {
    this.#holders.delete(holder.key);
    this.#options.onChange();
    await holder.session?.dispose();
  }
}

/** The disk budget is the store's, whichever model is loaded. */
function keyOf(path: string, { threads, memoryGigabytes }: ModelChoice): string {
  return `${threads} ${memoryGigabytes} ${path}`;
}
