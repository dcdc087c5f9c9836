/**
 * One repository in one model's memory: its header, the segments that are loaded, and the tails behind them.
 *
 * What is read and in which order is the indexing feature's to say; this only holds, loads and saves. Sequences that a
 * running request attends to stay alive in native code when they are let go of here.
 */

import { codeOf, EngineError } from "../errors";
import { limits } from "../config";
import type { Log } from "../log";
import type { NativeSequence } from "../native/addon";
import { prefillAll } from "../generation/prefill";
import type { Job, JobKind, Scheduler } from "../scheduler/scheduler";
import { segmentKey, tailKey, type ContextRecord, type Identity, type SegmentRecord } from "./context";
import type { ContextStore } from "./store";
import { free, TailPool, type Tail } from "./tails";

export interface ContextOptions {
  readonly root: string;
  readonly identity: Identity;
  readonly scheduler: Scheduler;
  readonly store: ContextStore;
  readonly log: Log;
}

export class RepositoryContext {
  readonly root: string;
  readonly identity: Identity;
  readonly chatTails: TailPool;
  readonly completionTails: TailPool;
  readonly #scheduler: Scheduler;
  readonly #store: ContextStore;
  readonly #log: Log;
  readonly #loaded = new Map<string, NativeSequence>();
  readonly #stop = new AbortController();
  #header: Promise<NativeSequence> | undefined;
  #restoring: Promise<void> | undefined;
  #preparing: Promise<void> | undefined;
  #record: ContextRecord | undefined;
  #bytes = 0;

  constructor(options: ContextOptions) {
    this.root = options.root;
    this.identity = options.identity;
    this.#scheduler = options.scheduler;
    this.#store = options.store;
    this.#log = options.log;
    this.#record = options.root === "" ? undefined : options.store.get(options.root, options.identity.fingerprint);
    // A record made with another header or another S describes KV that is of no use here.
    if (this.#record !== undefined && this.#record.header.key !== this.headerKey) this.#record = undefined;
    this.chatTails = new TailPool(options.scheduler, limits.chatTailsMax);
    this.completionTails = new TailPool(options.scheduler, limits.completionTailsMax);
  }

  get headerKey(): string {
    return segmentKey(this.identity, "");
  }

  get record(): ContextRecord | undefined {
    return this.#record;
  }

  /** Segments a request could attend to now without reading anything. */
  get loadedSegments(): readonly SegmentRecord[] {
    return (this.#record?.segments ?? []).filter(({ key }) => this.#loaded.has(key));
  }

  /** Bytes on disk of what is loaded: what it takes in memory, near enough. */
  get bytesInMemory(): number {
    return this.#bytes;
  }

  /** Position of a segment's first token. */
  get segmentBase(): number {
    return this.identity.headerTokens.length;
  }

  /** Whether the KV of `key` is there, loaded or saved. */
  has(key: string): boolean {
    return this.#loaded.has(key) || this.#store.has(key);
  }

  sequenceOf(key: string): NativeSequence | undefined {
    return this.#loaded.get(key);
  }

  /** Takes a new description. Loaded segments that it does not name are let go of. */
  async describe(record: ContextRecord): Promise<void> {
    this.#record = record;
    const named = new Set(record.segments.map(({ key }) => key));
    for (const [key, sequence] of this.#loaded) {
      if (named.has(key)) continue;
      this.#loaded.delete(key);
      this.#bytes -= this.#store.bytesOf(key);
      free(this.#scheduler, sequence);
    }
    this.#dropOldTails();
    await this.#store.put(record);
  }

  /** Saves a segment that was read, and takes it over. */
  async add(job: Job, key: string, sequence: NativeSequence): Promise<void> {
    try {
      await this.#save(job, key, sequence);
    } finally {
      // It is of use in memory even when the disk is full.
      this.#adopt(key, sequence);
    }
  }

  /** The header's KV, from disk where possible. Computed once; every segment and tail attends to it. */
  header(): Promise<NativeSequence> {
    this.#header ??= this.#openHeader().catch((error: unknown) => {
      this.#header = undefined;
      throw error;
    });
    return this.#header;
  }

  /** Whether `restore` would have something to do. */
  get needsRestoring(): boolean {
    return (this.#record?.segments ?? []).some(({ key }) => !this.#loaded.has(key) && this.#store.has(key));
  }

  /** Loads every saved segment that is not loaded. Shared by all who ask at the same time, and not stopped when they leave. */
  restore(): Promise<void> {
    this.#restoring ??= this.#loadSaved().finally(() => {
      this.#restoring = undefined;
    });
    return this.#restoring;
  }

  /** Names what a tail attends to that leaves out the segments with `leftOut` in them. */
  attendsWithout(leftOut: (segment: SegmentRecord) => boolean): string {
    return this.loadedSegments
      .filter((segment) => !leftOut(segment))
      .map(({ key }) => key)
      .join();
  }

  /** A new tail behind the header and every loaded segment that is not left out. */
  async newTail(leftOut: (segment: SegmentRecord) => boolean): Promise<Tail> {
    // Without a repository there is nothing that every tail begins with.
    const header = this.identity.headerTokens.length > 0 ? [await this.header()] : [];
    const segments = this.loadedSegments.filter((segment) => !leftOut(segment));
    const sequences = segments.map(({ key }) => this.#loaded.get(key)).filter((sequence) => sequence !== undefined);
    const sequence = await this.#scheduler.upkeep((model) =>
      model.createSequence({
        basePosition: this.segmentBase + (segments.length > 0 ? this.identity.segmentPositions : 0),
        attends: [...header, ...sequences],
      }),
    );
    return { sequence, segments, attends: segments.map(({ key }) => key).join() };
  }

  /**
   * Makes ready what every chat begins with, so that a question costs its own words alone: from disk, or computed and
   * saved when there is time for that.
   */
  prepareChats(kind: JobKind, tokens: Uint32Array, mayCompute: boolean): Promise<void> {
    // Whoever comes while it is being made ready does without.
    if (this.#preparing !== undefined) return Promise.resolve();
    const job: Job = { kind, signal: this.#stop.signal };
    this.#preparing = this.#prepareChats(job, tokens, mayCompute).finally(() => {
      this.#preparing = undefined;
    });
    return this.#preparing;
  }

  async #prepareChats(job: Job, tokens: Uint32Array, mayCompute: boolean): Promise<void> {
    const all = (): boolean => false;
    const attends = this.attendsWithout(all);
    const key = tailKey(this.identity, attends, tokens);
    if (attends === "" || this.chatTails.hasBase(attends) || !(mayCompute || this.#store.has(key))) return;
    const tail = await this.newTail(all);
    if (tail.attends !== attends || !(await this.#fillTail(job, tail, key, tokens, mayCompute))) {
      this.chatTails.drop(tail);
      return;
    }
    this.chatTails.setBase(tail, tokens);
    this.#dropOldTails();
  }

  /** Lets go of everything native. What is on disk stays. */
  async dispose(): Promise<void> {
    this.#stop.abort();
    await this.#restoring?.catch(() => undefined);
    await this.#preparing?.catch(() => undefined);
    this.chatTails.close();
    this.completionTails.close();
    for (const sequence of this.#loaded.values()) free(this.#scheduler, sequence);
    this.#loaded.clear();
    this.#bytes = 0;
    const header = await this.#header?.catch(() => undefined);
    if (header !== undefined) free(this.#scheduler, header);
    this.#header = undefined;
  }

  async #openHeader(): Promise<NativeSequence> {
    const job: Job = { kind: "chat", signal: this.#stop.signal };
    const saved = await this.#load(job, this.headerKey, { basePosition: 0, attends: [] });
    if (saved !== undefined) return saved;
    const sequence = await this.#scheduler.upkeep((model) => model.createSequence({ basePosition: 0, attends: [] }));
    try {
      await this.#scheduler.run(job, () => sequence.setTokens(this.identity.headerTokens));
      await prefillAll(this.#scheduler, job, sequence);
      if (this.root !== "") await this.#save(job, this.headerKey, sequence);
    } catch (error) {
      // Without its header nothing is of use, but a header that could not be saved is.
      if (!(error instanceof EngineError) || error.kind !== "noSpace") {
        free(this.#scheduler, sequence);
        throw error;
      }
    }
    return sequence;
  }

  async #loadSaved(): Promise<void> {
    const job: Job = { kind: "chat", signal: this.#stop.signal };
    const header = await this.header();
    for (const { key } of this.#record?.segments ?? []) {
      if (this.#loaded.has(key) || !this.#store.has(key)) continue;
      const sequence = await this.#load(job, key, { basePosition: this.segmentBase, attends: [header] });
      if (sequence !== undefined) this.#adopt(key, sequence);
    }
  }

  /** Whether the tail holds `tokens` now. */
  async #fillTail(job: Job, tail: Tail, key: string, tokens: Uint32Array, mayCompute: boolean): Promise<boolean> {
    try {
      if (this.#store.has(key) && (await this.#loadInto(job, tail.sequence, key))) return true;
      if (!mayCompute) return false;
      await this.#scheduler.run(job, () => tail.sequence.setTokens(tokens));
      await prefillAll(this.#scheduler, job, tail.sequence);
      await this.#save(job, key, tail.sequence);
      const record = this.#record;
      if (record !== undefined) {
        this.#record = { ...record, tails: [key] };
        await this.#store.put(this.#record);
      }
      return true;
    } catch (error) {
      this.chatTails.drop(tail);
      throw error;
    }
  }

  /** Undefined when there is nothing saved or it does not check out; that is then set aside, to be read again. */
  async #load(
    job: Job,
    key: string,
    options: { basePosition: number; attends: readonly NativeSequence[] },
  ): Promise<NativeSequence | undefined> {
    if (!this.#store.has(key)) return undefined;
    const sequence = await this.#scheduler.upkeep((model) => model.createSequence(options));
    try {
      if (await this.#loadInto(job, sequence, key)) return sequence;
    } catch (error) {
      free(this.#scheduler, sequence);
      throw error;
    }
    free(this.#scheduler, sequence);
    return undefined;
  }

  /** False when the file does not check out; it is then set aside. */
  async #loadInto(job: Job, sequence: NativeSequence, key: string): Promise<boolean> {
    try {
      await this.#scheduler.run(job, () => sequence.load({ path: this.#store.pathOf(key), key }));
      return true;
    } catch (error) {
      const code = codeOf(error);
      if (code !== "corrupt" && code !== "invalidArgument" && code !== "notFound" && code !== "io") throw error;
      this.#log.warn(`Segment ${key} does not check out (${code})`);
      await this.#store.setAside(key);
      return false;
    }
  }

  async #save(job: Job, key: string, sequence: NativeSequence): Promise<void> {
    const path = this.#store.pathOf(key);
    const write = (): Promise<{ readonly bytes: number }> =>
      this.#scheduler.run(job, () => sequence.save({ path, key }));
    try {
      this.#store.saved(key, (await write()).bytes);
    } catch (error) {
      if (codeOf(error) !== "noSpace") throw error;
      // What no record names is the first to go; the second failure is the user's to hear of.
      if ((await this.#store.removeOrphans()) === 0) throw noSpace(error);
      this.#store.saved(
        key,
        (
          await write().catch((again: unknown) => {
            throw codeOf(again) === "noSpace" ? noSpace(again) : again;
          })
        ).bytes,
      );
    }
  }

  #adopt(key: string, sequence: NativeSequence): void {
    const before = this.#loaded.get(key);
    if (before !== undefined) free(this.#scheduler, before);
    else this.#bytes += this.#store.bytesOf(key);
    this.#loaded.set(key, sequence);
    this.#dropOldTails();
  }

  /** Tails behind segments that are gone, and tails that lack one that was added, serve nobody any more. */
  #dropOldTails(): void {
    const all = this.attendsWithout(() => false);
    this.chatTails.keepOnly((attends) => attends === all);
    const keys = new Set(this.loadedSegments.map(({ key }) => key));
    this.completionTails.keepOnly((attends) => attends === "" || attends.split(",").every((key) => keys.has(key)));
  }
}

function noSpace(cause: unknown): EngineError {
  return new EngineError(
    "noSpace",
    "The disk is full: free some space, or forget a repository, and index again; what was read so far is kept.",
    { cause },
  );
}
