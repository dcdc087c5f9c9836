/**
 * One repository in one model's memory: its header, the segments that are loaded, and the tails behind them.
 *
 * What is read and in which order is the indexing feature's to say; this only holds, loads and saves. Sequences that a
 * running request or a kept tail attends to stay alive in native code when they are let go of here.
 */

import { limits } from "../config";
import { codeOf, EngineError } from "../errors";
import { prefillAll } from "../generation/prefill";
import type { Log } from "../log";
import type { NativeSequence, TokenBytes } from "../native/addon";
import type { Job, JobKind, Scheduler } from "../scheduler/scheduler";
import { Breather } from "../util/breather";
import { ChangeLog, type FileChange } from "./changes";
import { segmentKey, tailKey, type ContextRecord, type Identity, type SegmentRecord } from "./context";
import { blocksNamed, type AskedName, type NamedBlocks } from "./named";
import { SavedKv } from "./savedKv";
import { SegmentText } from "./segmentText";
import { noFocus, selectionFor, selectionName, type Focus } from "./selection";
import type { ContextStore } from "./store";
import { free, TailPool, type Tail } from "./tails";

export interface ContextOptions {
  readonly root: string;
  readonly identity: Identity;
  readonly scheduler: Scheduler;
  readonly store: ContextStore;
  readonly log: Log;
  /** What a token takes in a file. */
  readonly bytesPerToken: number;
  /** What tokens write, and how many of them make a block: to find names in what was read. */
  readonly tokenBytes: TokenBytes;
  readonly blockTokens: number;
}

/** Segments whose tokens are asked for with one command. */
const textsAtOnce = 16;

/** What a new tail attends to. */
interface View {
  /** Names it; never used for another one. */
  readonly attends: string;
  readonly segments: readonly SegmentRecord[];
  readonly sequences: readonly NativeSequence[];
}

export class RepositoryContext {
  readonly root: string;
  readonly identity: Identity;
  readonly chatTails: TailPool;
  readonly completionTails: TailPool;
  /** What became of files since this was opened. */
  readonly changes = new ChangeLog();
  readonly #options: ContextOptions;
  readonly #scheduler: Scheduler;
  readonly #store: ContextStore;
  readonly #saved: SavedKv;
  readonly #loaded = new Map<string, NativeSequence>();
  /** What loaded segments say, once somebody asked. */
  readonly #texts = new Map<string, SegmentText>();
  /** Keys whose file turned out to be unusable, until they are read again. */
  readonly #damaged = new Set<string>();
  readonly #stop = new AbortController();
  #header: Promise<NativeSequence> | undefined;
  #restoring: Promise<void> | undefined;
  #preparing: Promise<void> | undefined;
  #record: ContextRecord | undefined;
  #view: View | undefined;
  #views = 0;

  constructor(options: ContextOptions) {
    this.root = options.root;
    this.identity = options.identity;
    this.#options = options;
    this.#scheduler = options.scheduler;
    this.#store = options.store;
    this.#saved = new SavedKv(options);
    this.#record = options.root === "" ? undefined : options.store.get(options.root, options.identity.fingerprint);
    // A record made with another header or another S describes KV that is of no use here.
    if (this.#record !== undefined && this.#record.header.key !== this.headerKey) this.#record = undefined;
    this.chatTails = new TailPool(options.scheduler, limits.chatTailsMax);
    this.completionTails = new TailPool(options.scheduler, limits.completionTailsMax);
    options.store.hold(options.root);
  }

  get headerKey(): string {
    return segmentKey(this.identity, "");
  }

  get record(): ContextRecord | undefined {
    return this.#record;
  }

  /** Segments a request could attend to now without reading anything. */
  get loadedSegments(): readonly SegmentRecord[] {
    return this.#currentView().segments;
  }

  /** Names what a new tail would attend to; changes whenever that does. */
  get attends(): string {
    return this.#currentView().attends;
  }

  /** KV of what is loaded, wherever it is. */
  get bytes(): number {
    const tokens = this.loadedSegments.reduce((sum, segment) => sum + segment.tokens, 0);
    return tokens * this.#options.bytesPerToken;
  }

  /** Position of a segment's first token. */
  get segmentBase(): number {
    return this.identity.headerTokens.length;
  }

  /** Whether the KV of `key` is there, loaded or saved. */
  has(key: string): boolean {
    return this.#loaded.has(key) || this.#store.has(key);
  }

  /** Whether a segment that had been read was lost to a damaged file, and waits to be read again. */
  get needsRepair(): boolean {
    return this.#damaged.size > 0 && (this.#record?.segments ?? []).some(({ key }) => this.#damaged.has(key));
  }

  /** A segment's sequence, loaded if need be; undefined when it was not read or does not check out. */
  async sequenceOf(job: Job, key: string): Promise<NativeSequence | undefined> {
    const loaded = this.#loaded.get(key);
    if (loaded !== undefined || !this.#store.has(key)) return loaded;
    await this.#loadSegment(job, key);
    return this.#loaded.get(key);
  }

  /** Takes a new description. Loaded segments that it does not name are let go of. `changes`: what became of files since the last one. */
  async describe(record: ContextRecord, changes: readonly FileChange[]): Promise<void> {
    this.#record = record;
    this.changes.note(changes);
    const named = new Set(record.segments.map(({ key }) => key));
    for (const key of this.#damaged) if (!named.has(key)) this.#damaged.delete(key);
    for (const key of this.#loaded.keys()) if (!named.has(key)) this.#unload(key);
    this.#changed();
    await this.#store.put(record);
  }

  /** An empty sequence for a segment, and how many of its tokens were computed by a run that was stopped. */
  async begin(job: Job, key: string): Promise<{ readonly sequence: NativeSequence; readonly resumed: number }> {
    const header = await this.header();
    const options = { basePosition: this.segmentBase, attends: [header] };
    const sequence = await this.#scheduler.upkeep((model) => model.createSequence(options));
    try {
      return { sequence, resumed: await this.#saved.resume(job, key, sequence) };
    } catch (error) {
      free(this.#scheduler, sequence);
      throw error;
    }
  }

  /** Saves what is computed of a segment so far, so that nothing kills more than a moment's work. */
  checkpoint(job: Job, key: string, sequence: NativeSequence): Promise<void> {
    return this.#saved.checkpoint(job, key, sequence);
  }

  /** Saves a segment that was read, and takes it over. */
  async add(job: Job, segment: SegmentRecord, sequence: NativeSequence): Promise<void> {
    try {
      await this.#saved.save(job, segment.key, sequence, segment.tokens);
    } finally {
      // It is of use in memory even when the disk is full.
      this.#adopt(segment.key, sequence);
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

  /**
   * A tail that holds as much of `tokens` as can be had, and whose queries will attend as `focus` says: behind all that
   * is loaded now, or, when a tail is kept that attends `attends`, behind that.
   */
  async tail(pool: TailPool, tokens: Uint32Array, focus: Focus, attends?: string): Promise<Tail> {
    const view = this.#currentView();
    const current = withScope(view.attends, focus);
    const wanted = attends !== undefined && pool.segmentsOf(attends) !== undefined ? attends : current;
    const tail = await pool.acquire(wanted, tokens, () => this.#newTail(view, current));
    // Lines of another state would hide the wrong ones.
    return this.#focused(pool, tail, tail.attends === wanted ? focus : { ...focus, hidden: [] });
  }

  /** Where what is loaded says what these names are. Segments that somebody lets go of meanwhile are left out. */
  async named(names: readonly AskedName[]): Promise<readonly NamedBlocks[]> {
    if (names.length === 0) return [];
    await this.#readTexts();
    const segments = this.loadedSegments.flatMap(({ key }) => {
      const text = this.#texts.get(key);
      return text === undefined ? [] : [{ key, text }];
    });
    return blocksNamed(names, segments);
  }

  /** Forgets KV that is to be computed anew. */
  async discard(keys: readonly string[]): Promise<void> {
    for (const key of keys) {
      this.#unload(key);
      await this.#store.discard(key);
    }
    if (keys.length > 0) this.#changed();
  }

  /**
   * Whether a native failure came from a saved file. What it held is then let go of and read again by whoever repairs;
   * the request can be tried once more.
   */
  async setAsideFrom(error: unknown): Promise<boolean> {
    const code = codeOf(error);
    if ((code !== "corrupt" && code !== "io") || !(error instanceof Error)) return false;
    const key = this.#store.keyNamedIn(error.message);
    if (key === undefined) return false;
    this.#options.log.warn(error.message);
    await this.#store.setAside(key);
    if (key === this.headerKey) this.#header = undefined;
    this.#unload(key);
    this.#damaged.add(key);
    this.#changed();
    return true;
  }

  /** Whether a failure while `key` was read came from a file, of which nothing is used when it is tried again. */
  async letGoOfDamage(error: unknown, key: string): Promise<boolean> {
    const code = codeOf(error);
    if (code !== "corrupt" && code !== "io") return false;
    this.#options.log.warn(`Segment ${key} is read from its beginning`, error);
    await this.#store.dropPart(key);
    await this.setAsideFrom(error);
    return true;
  }

  /**
   * Makes ready what every chat begins with, so that a question costs its own words alone: from disk, or computed and
   * saved when there is time for that.
   */
  prepareChats(kind: JobKind, tokens: Uint32Array, mayCompute: boolean): Promise<void> {
    // Whoever comes while it is being made ready does without.
    if (this.#preparing !== undefined) return Promise.resolve();
    const job: Job = { kind, signal: this.#stop.signal };
    this.#preparing = this.#prepareChats(job, tokens, mayCompute)
      .then(() => this.#readTexts())
      .finally(() => {
        this.#preparing = undefined;
      });
    return this.#preparing;
  }

  /** Lets go of everything native. What is on disk stays. */
  async dispose(): Promise<void> {
    this.#stop.abort();
    await this.#restoring?.catch(() => undefined);
    await this.#preparing?.catch(() => undefined);
    this.chatTails.close();
    this.completionTails.close();
    for (const key of this.#loaded.keys()) this.#unload(key);
    this.#changed();
    const header = await this.#header?.catch(() => undefined);
    if (header !== undefined) free(this.#scheduler, header);
    this.#header = undefined;
    this.#store.letGo(this.root);
  }

  async #prepareChats(job: Job, tokens: Uint32Array, mayCompute: boolean): Promise<void> {
    const view = this.#currentView();
    if (view.segments.length === 0 || this.chatTails.hasBase(view.attends)) return;
    const keys = view.segments.map(({ key }) => key);
    const key = tailKey(this.identity, keys, selectionName, tokens);
    if (!mayCompute && !this.#store.has(key)) return;
    const tail = await this.#focused(this.chatTails, await this.#newTail(view, view.attends), noFocus);
    try {
      if (!(await this.#fillTail(job, tail, key, tokens, mayCompute))) return this.chatTails.drop(tail);
    } catch (error) {
      this.chatTails.drop(tail);
      throw error;
    }
    await this.#readAhead(job, tail);
    if (this.attends !== view.attends) return this.chatTails.drop(tail);
    this.chatTails.setBase(tail, tokens);
  }

  /**
   * Brings into memory what every question attends to: a question that waits for it would wait longer for the same
   * blocks layer by layer.
   */
  async #readAhead(job: Job, { sequence }: Tail): Promise<void> {
    try {
      await this.#scheduler.run(job, () => sequence.prefetch());
    } catch (error) {
      // Damage is set aside and read anew; whatever else there is, the question itself will tell.
      await this.setAsideFrom(error).catch(() => undefined);
    }
  }

  /** Whether the tail holds `tokens` now. */
  async #fillTail(job: Job, tail: Tail, key: string, tokens: Uint32Array, mayCompute: boolean): Promise<boolean> {
    if (this.#store.has(key) && (await this.#saved.loadInto(job, tail.sequence, key))) return true;
    if (!mayCompute) return false;
    await this.#scheduler.run(job, () => tail.sequence.setTokens(tokens));
    await prefillAll(this.#scheduler, job, tail.sequence);
    await this.#saved.save(job, key, tail.sequence, tokens.length);
    const record = this.#record;
    if (record !== undefined) {
      this.#record = { ...record, tails: [key] };
      await this.#store.put(this.#record);
    }
    return true;
  }

  /** A part of getting chats ready, so that a question finds it done. What cannot be had is found by nobody. */
  async #readTexts(): Promise<void> {
    const { tokenBytes, blockTokens } = this.#options;
    const breather = new Breather();
    const missing = [...this.#loaded].filter(([key]) => !this.#texts.has(key));
    for (let from = 0; from < missing.length; from += textsAtOnce) {
      const some = missing.slice(from, from + textsAtOnce);
      const held = await this.#scheduler.upkeep(() => tokensOf(some.map(([, sequence]) => sequence)));
      for (const [at, [key, sequence]] of some.entries()) {
        const tokens = held[at];
        if (tokens === undefined || this.#loaded.get(key) !== sequence) continue;
        this.#texts.set(key, new SegmentText(tokens, tokenBytes, blockTokens));
        if (breather.due) await breather.breathe();
      }
    }
  }

  async #newTail(view: View, attends: string): Promise<Tail> {
    // Without a repository there is nothing that every tail begins with.
    const header = this.identity.headerTokens.length > 0 ? [await this.header()] : [];
    const behind = view.segments.length > 0 ? this.identity.segmentPositions : 0;
    const sequence = await this.#scheduler.upkeep((model) =>
      model.createSequence({ basePosition: this.segmentBase + behind, attends: [...header, ...view.sequences] }),
    );
    return { sequence, segments: view.segments, attends, selection: "" };
  }

  /** Tells native code which blocks to choose from, unless it was told the same before. */
  async #focused(pool: TailPool, tail: Tail, focus: Focus): Promise<Tail> {
    const options = selectionFor(tail.segments, focus);
    const selection = JSON.stringify(options);
    if (selection === tail.selection) return tail;
    try {
      await this.#scheduler.upkeep(() => tail.sequence.select(options));
      return { ...tail, selection };
    } catch (error) {
      pool.drop(tail);
      throw error;
    }
  }

  async #openHeader(): Promise<NativeSequence> {
    const job: Job = { kind: "chat", signal: this.#stop.signal };
    const saved = await this.#saved.load(job, this.headerKey, { basePosition: 0, attends: [] });
    if (saved !== undefined) return saved;
    const { headerTokens } = this.identity;
    const sequence = await this.#scheduler.upkeep((model) => model.createSequence({ basePosition: 0, attends: [] }));
    try {
      await this.#scheduler.run(job, () => sequence.setTokens(headerTokens));
      await prefillAll(this.#scheduler, job, sequence);
      if (this.root !== "") await this.#saved.save(job, this.headerKey, sequence, headerTokens.length);
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
    void this.#store.used(this.root);
    for (const { key } of this.#record?.segments ?? []) {
      if (!this.#loaded.has(key) && this.#store.has(key)) await this.#loadSegment(job, key);
    }
  }

  async #loadSegment(job: Job, key: string): Promise<void> {
    const attends = [await this.header()];
    const sequence = await this.#saved.load(job, key, { basePosition: this.segmentBase, attends });
    if (sequence === undefined) this.#damaged.add(key);
    else this.#adopt(key, sequence);
  }

  #adopt(key: string, sequence: NativeSequence): void {
    this.#unload(key);
    this.#loaded.set(key, sequence);
    this.#damaged.delete(key);
    this.#changed();
  }

  #unload(key: string): void {
    const sequence = this.#loaded.get(key);
    if (sequence === undefined) return;
    this.#loaded.delete(key);
    this.#texts.delete(key);
    free(this.#scheduler, sequence);
  }

  /** Kept tails lack what was added, or see what is gone: a chat may go on behind its own, a completion must not. */
  #changed(): void {
    this.#view = undefined;
    this.completionTails.keepOnly(() => false);
    this.chatTails.dropBase();
  }

  #currentView(): View {
    this.#view ??= this.#newView();
    return this.#view;
  }

  #newView(): View {
    this.#views += 1;
    const segments = (this.#record?.segments ?? []).filter(({ key }) => this.#loaded.has(key));
    const sequences = segments.map(({ key }) => this.#loaded.get(key)).filter((sequence) => sequence !== undefined);
    return { attends: `view ${this.#views}`, segments, sequences };
  }
}

/** A tail behind the whole repository has words of all of it in its KV: it cannot serve a question about a part. */
function withScope(attends: string, { scope }: Focus): string {
  return scope.length === 0 ? attends : `${attends} of ${JSON.stringify(scope)}`;
}

/** Undefined for one that was freed meanwhile. */
async function tokensOf(sequences: readonly NativeSequence[]): Promise<readonly (Uint32Array | undefined)[]> {
  const all: (Uint32Array | undefined)[] = [];
  for (const sequence of sequences) all.push(await sequence.tokens().catch(() => undefined));
  return all;
}
