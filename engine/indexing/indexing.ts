/**
 * Reading a repository into its context: scan, tokenise, plan, and prefill what is not there yet, most useful first.
 *
 * Every segment is saved when it is done, so that a run which is stopped at any moment is resumed by the next. What
 * changes on disk afterwards is read again when the files have been quiet for a moment.
 */

import { limits } from "../config";
import { tokensOf, type ContextRecord, type SegmentRecord } from "../contexts/context";
import type { RepositoryContext } from "../contexts/repositoryContext";
import type { ContextStore } from "../contexts/store";
import { free } from "../contexts/tails";
import { pathWithin } from "../documents/documents";
import { Cancelled, EngineError, throwIfAborted } from "../errors";
import { prefillAll } from "../generation/prefill";
import type { Log } from "../log";
import type { NativeSequence } from "../native/addon";
import type { EngineSettings, FileState, IndexSummary } from "../protocol";
import { scan, type ScanResult } from "../repository/scanner";
import { ChunkBudget } from "../scheduler/budget";
import type { Job } from "../scheduler/scheduler";
import type { Session } from "../sessions/session";
import type { Sessions } from "../sessions/sessions";
import { SharedWork } from "../util/sharedWork";
import { plan, type PlannedSegment } from "./plan";
import { ProgressReport, type ProgressState } from "./progress";
import { FileReader } from "./reader";
import { byUsefulness } from "./usefulness";

export interface IndexingOptions {
  readonly sessions: Sessions;
  readonly store: ContextStore;
  readonly log: Log;
  /** Absolute paths of the files that are open in an editor. */
  readonly openFiles: () => readonly string[];
  /** What runs, or a context, changed. */
  readonly onChange: () => void;
}

export interface IndexRequest {
  /** Canonical. */
  readonly root: string;
  readonly editorExcludes: Readonly<Record<string, boolean>>;
  readonly settings: EngineSettings;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: ProgressState) => void;
}

type Summary = Omit<IndexSummary, "root">;

interface Run {
  readonly work: SharedWork<Summary, ProgressState>;
  readonly report: ProgressReport;
  reading: SegmentRecord | undefined;
}

interface RootState {
  readonly reader: FileReader;
  /** Relative paths that changed since they were read. */
  readonly stale: Set<string>;
  run: Run | undefined;
  timer: NodeJS.Timeout | undefined;
  settings: EngineSettings | undefined;
  /** A segment that was begun when a run was stopped. */
  begun: { readonly session: Session; readonly key: string; readonly sequence: NativeSequence } | undefined;
}

export class Indexing {
  readonly #options: IndexingOptions;
  readonly #roots = new Map<string, RootState>();
  #closed = false;

  constructor(options: IndexingOptions) {
    this.#options = options;
  }

  /** What the first running index tells, for the status. */
  get progress(): ProgressState | undefined {
    for (const { run } of this.#roots.values()) if (run !== undefined) return run.report.state;
    return undefined;
  }

  /** Reads what of the repository is not read yet. Cancelling resolves with what was done until then. */
  async index(request: IndexRequest): Promise<Summary> {
    const { root, signal, onProgress } = request;
    const state = this.#state(root);
    state.settings = request.settings;
    clearTimeout(state.timer);
    if (state.run?.work.stopped === true) await state.run.work.settled;
    state.run ??= this.#start(state, request);
    return state.run.work.join(signal, onProgress);
  }

  /** Files changed on disk, or buffers were saved or closed: their segments are read again once they are quiet. */
  changed(files: readonly string[]): void {
    for (const record of this.#options.store.records()) {
      const paths = files.map((file) => pathWithin(record.root, file)).filter((path) => path !== undefined);
      if (paths.length === 0) continue;
      const concerned = paths.filter((path) => !isOutside(record, path));
      if (concerned.length === 0) continue;
      const state = this.#state(record.root);
      for (const path of concerned) state.stale.add(path);
      this.#refreshSoon(record.root, state);
    }
  }

  /** A repository is used for the first time: looks, when it is quiet, whether it changed while no engine ran. */
  used(root: string, settings: EngineSettings): void {
    if (root === "" || this.#roots.has(root)) return;
    const state = this.#state(root);
    state.settings = settings;
    this.#refreshSoon(root, state);
  }

  fileState(root: string, context: RepositoryContext | undefined, record: ContextRecord, path: string): FileState {
    const state = this.#roots.get(root);
    if (state?.stale.has(path) === true) return { kind: "stale" };
    if (state?.run?.reading?.files.includes(path) === true) return { kind: "reading" };
    const has = (key: string): boolean => context?.has(key) ?? this.#options.store.has(key);
    const ready = record.segments.every((segment) => !segment.files.includes(path) || has(segment.key));
    return { kind: ready ? "fresh" : "waiting" };
  }

  /** Stops a run of this root and waits until it has. */
  async stop(root: string): Promise<void> {
    const state = this.#roots.get(root);
    if (state === undefined) return;
    this.#roots.delete(root);
    clearTimeout(state.timer);
    state.run?.work.stop();
    await state.run?.work.settled;
    dropBegun(state);
  }

  async dispose(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#roots.keys()].map((root) => this.stop(root)));
  }

  #state(root: string): RootState {
    const known = this.#roots.get(root);
    if (known !== undefined) return known;
    const state: RootState = {
      reader: new FileReader(),
      stale: new Set(),
      run: undefined,
      timer: undefined,
      settings: undefined,
      begun: undefined,
    };
    this.#roots.set(root, state);
    return state;
  }

  #start(state: RootState, request: IndexRequest): Run {
    const report = new ProgressReport((progress) => {
      run.work.tell(progress);
      this.#options.onChange();
    });
    const onReading = (segment: SegmentRecord | undefined): void => {
      run.reading = segment;
    };
    const work = new SharedWork<Summary, ProgressState>((signal) =>
      new IndexRun(this.#options, state, request, signal, report, onReading).result().finally(() => {
        if (state.run === run) state.run = undefined;
        this.#options.onChange();
      }),
    );
    const run: Run = { work, report, reading: undefined };
    return run;
  }

  #refreshSoon(root: string, state: RootState): void {
    if (this.#closed) return;
    clearTimeout(state.timer);
    state.timer = setTimeout(() => {
      void this.#refresh(root, state);
    }, limits.refreshIdleMs);
    state.timer.unref();
  }

  async #refresh(root: string, state: RootState): Promise<void> {
    const [record] = this.#options.store.recordsOf(root);
    const settings = state.settings;
    if (record === undefined || settings === undefined || this.#closed) return;
    if (state.run !== undefined) return this.#refreshSoon(root, state);
    const { editorExcludes, ...same } = record.options;
    try {
      await this.index({
        root,
        editorExcludes,
        settings: { ...settings, ...same },
        signal: new AbortController().signal,
        onProgress: () => undefined,
      });
    } catch (error) {
      this.#options.log.warn(`${root} could not be refreshed`, error);
    }
  }
}

/** One pass over a repository. */
class IndexRun {
  readonly #options: IndexingOptions;
  readonly #state: RootState;
  readonly #request: IndexRequest;
  readonly #signal: AbortSignal;
  readonly #report: ProgressReport;
  readonly #onReading: (segment: SegmentRecord | undefined) => void;
  readonly #startedAt = performance.now();
  #tokensRead = 0;
  #summary: Summary = { files: 0, tokens: 0, tokensRead: 0, leftOut: 0, seconds: 0, complete: false };

  constructor(
    options: IndexingOptions,
    state: RootState,
    request: IndexRequest,
    signal: AbortSignal,
    report: ProgressReport,
    onReading: (segment: SegmentRecord | undefined) => void,
  ) {
    this.#options = options;
    this.#state = state;
    this.#request = request;
    this.#signal = signal;
    this.#report = report;
    this.#onReading = onReading;
  }

  async result(): Promise<Summary> {
    try {
      await this.#run();
    } catch (error) {
      if (!(error instanceof Cancelled)) throw error;
    } finally {
      this.#onReading(undefined);
    }
    const seconds = (performance.now() - this.#startedAt) / 1000;
    return { ...this.#summary, tokensRead: this.#tokensRead, seconds };
  }

  async #run(): Promise<void> {
    const { root, settings, editorExcludes } = this.#request;
    const stale = [...this.#state.stale];
    this.#report.set({ stage: "scanning" });
    const scanned = await scan(
      root,
      {
        exclude: settings.exclude,
        editorExcludes,
        fileBytesMax: settings.fileKilobytesMax * 1024,
        onProgress: (filesSeen) => this.#report.set({ filesTotal: filesSeen }),
      },
      this.#signal,
    );
    if (scanned.files.length === 0) throw nothingToRead(root);
    this.#report.set({ stage: "loading", filesTotal: scanned.files.length });
    await this.#options.sessions.use(settings, this.#signal, async (session) => {
      const context = await session.context(root);
      await context.header();
      if (!this.#unchanged(context, scanned)) await this.#read(session, context, scanned);
      else this.#summarise(context);
    });
    for (const path of stale) this.#state.stale.delete(path);
  }

  /** Whether the record describes exactly these files, and all of it was read. */
  #unchanged(context: RepositoryContext, scanned: ScanResult): boolean {
    const { record } = context;
    if (record === undefined || !record.segments.every(({ key }) => context.has(key))) return false;
    if (JSON.stringify(record.options) !== JSON.stringify(this.#recordOptions())) return false;
    const known = new Map(record.files.map((file) => [file.path, file]));
    const leftOut = new Set(record.leftOut.map(({ path }) => path));
    const same = scanned.files.filter(({ path, bytes, mtimeMs }) => {
      const file = known.get(path);
      return file === undefined ? leftOut.has(path) : file.bytes === bytes && file.mtimeMs === mtimeMs;
    });
    const kept = scanned.files.filter(({ path }) => known.has(path)).length;
    return same.length === scanned.files.length && kept === known.size;
  }

  async #read(session: Session, context: RepositoryContext, scanned: ScanResult): Promise<void> {
    const { root, settings } = this.#request;
    this.#report.set({ stage: "scanning", filesDone: 0 });
    const open = new Set(this.#options.openFiles().map((file) => pathWithin(root, file) ?? ""));
    const read = await this.#state.reader.read({
      root,
      files: byUsefulness(scanned.files, open),
      text: session.text,
      fileBytesMax: settings.fileKilobytesMax * 1024,
      tokensMax: settings.contextTokensMax,
      signal: this.#signal,
      onProgress: (filesDone, path) => this.#report.set({ filesDone, path }),
    });
    if (read.files.length === 0) throw nothingToRead(root);
    const planned = await plan(
      session,
      context,
      {
        root,
        name: scanned.name,
        options: this.#recordOptions(),
        read,
        leftOut: scanned.leftOut.map((file) => ({ ...file })),
      },
      this.#signal,
    );
    const missing = planned.order.filter(({ record }) => !context.has(record.key));
    const started = await this.#beginFromOlder(session, context, missing);
    try {
      await context.describe(planned.record);
      this.#summarise(context);
      this.#options.onChange();
      await this.#readSegments(session, context, missing, started);
    } finally {
      for (const sequence of started.values()) free(session.scheduler, sequence);
    }
    this.#summarise(context);
  }

  async #readSegments(
    session: Session,
    context: RepositoryContext,
    missing: readonly PlannedSegment[],
    started: Map<string, NativeSequence>,
  ): Promise<void> {
    const record = context.record;
    if (record === undefined) return;
    const budget = new ChunkBudget(progressMs);
    let tokensDone = tokensOf(record) - missing.reduce((total, { tokens }) => total + tokens.length, 0);
    this.#report.set({
      stage: "reading",
      tokensTotal: tokensOf(record),
      tokensDone,
      filesTotal: record.files.length,
      filesDone: filesDone(context, record),
    });
    for (const segment of missing) {
      throwIfAborted(this.#signal);
      await this.#readSegment(session, context, segment, started, budget, tokensDone);
      tokensDone += segment.tokens.length;
      this.#report.set({ tokensDone, filesDone: filesDone(context, record) });
      this.#summarise(context);
    }
  }

  async #readSegment(
    session: Session,
    context: RepositoryContext,
    segment: PlannedSegment,
    started: Map<string, NativeSequence>,
    budget: ChunkBudget,
    tokensBefore: number,
  ): Promise<void> {
    const job: Job = { kind: "indexing", signal: this.#signal };
    const { key, files } = segment.record;
    this.#onReading(segment.record);
    this.#report.set({ stage: "reading", path: files[0] ?? "" });
    const sequence = await this.#sequenceFor(session, context, segment, started);
    try {
      const { kept } = await session.scheduler.run(job, () => sequence.setTokens(segment.tokens));
      let computed = kept;
      await prefillAll(session.scheduler, job, sequence, {
        budget,
        onProgress: (done) => {
          this.#tokensRead += Math.max(0, done - computed);
          computed = done;
          this.#report.speed(budget.tokensPerSecond, tokensBefore + done);
        },
      });
      this.#report.set({ stage: "saving" });
    } catch (error) {
      if (error instanceof Cancelled) this.#state.begun = { session, key, sequence };
      else free(session.scheduler, sequence);
      throw error;
    }
    await context.add(job, key, sequence);
  }

  /** The sequence that a stopped run began, one that shares a beginning with this segment, or a new one. */
  async #sequenceFor(
    session: Session,
    context: RepositoryContext,
    segment: PlannedSegment,
    started: Map<string, NativeSequence>,
  ): Promise<NativeSequence> {
    const { begun } = this.#state;
    if (begun !== undefined && begun.session === session && begun.key === segment.record.key) {
      this.#state.begun = undefined;
      return begun.sequence;
    }
    dropBegun(this.#state);
    const older = started.get(segment.record.key);
    if (older !== undefined) {
      started.delete(segment.record.key);
      return older;
    }
    const header = await context.header();
    return session.scheduler.upkeep((model) =>
      model.createSequence({ basePosition: context.segmentBase, attends: [header] }),
    );
  }

  /**
   * Copies of loaded segments that hold an earlier state of the same files: only what follows the first difference has
   * to be computed again. Taken before the new description lets the old segments go.
   */
  async #beginFromOlder(
    session: Session,
    context: RepositoryContext,
    missing: readonly PlannedSegment[],
  ): Promise<Map<string, NativeSequence>> {
    const started = new Map<string, NativeSequence>();
    const older = context.loadedSegments;
    for (const { record } of missing) {
      const candidates = older.filter(({ files }) => files[0] === record.files[0]);
      const [only] = candidates;
      const sequence = candidates.length === 1 && only !== undefined ? context.sequenceOf(only.key) : undefined;
      if (sequence === undefined) continue;
      started.set(record.key, await session.scheduler.upkeep(() => sequence.fork()));
    }
    return started;
  }

  #recordOptions(): ContextRecord["options"] {
    const { settings, editorExcludes } = this.#request;
    const { exclude, fileKilobytesMax, contextTokensMax } = settings;
    return { editorExcludes: { ...editorExcludes }, exclude: [...exclude], fileKilobytesMax, contextTokensMax };
  }

  #summarise(context: RepositoryContext): void {
    const { record } = context;
    if (record === undefined) return;
    const ready = record.segments.filter(({ key }) => context.has(key));
    this.#summary = {
      files: filesDone(context, record),
      tokens: ready.reduce((total, { tokens }) => total + tokens, 0),
      tokensRead: this.#tokensRead,
      leftOut: record.leftOut.length,
      seconds: 0,
      complete: ready.length === record.segments.length,
    };
  }
}

/** A prefill command of an index run lasts about this long, so that progress moves. */
const progressMs = 500;

/** Whether a change of this file is none of the context's business: a build's output, git's own files. */
function isOutside(record: ContextRecord, path: string): boolean {
  if (path.startsWith(".git/")) return true;
  return record.leftOut.some((left) => left.path.endsWith("/") && path.startsWith(left.path));
}

function dropBegun(state: RootState): void {
  const { begun } = state;
  if (begun === undefined) return;
  state.begun = undefined;
  free(begun.session.scheduler, begun.sequence);
}

/** Files whose every segment was read. */
function filesDone(context: RepositoryContext, record: ContextRecord): number {
  const waiting = new Set<string>();
  for (const segment of record.segments) {
    if (!context.has(segment.key)) for (const path of segment.files) waiting.add(path);
  }
  return record.files.length - waiting.size;
}

function nothingToRead(root: string): EngineError {
  return new EngineError(
    "repositoryEmpty",
    `There is nothing to read in ${root}: no text files are left after ignore rules, excludes and the size limit.`,
  );
}
