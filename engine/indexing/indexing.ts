/**
 * Reading a repository into its context: scan, tokenise, plan, and prefill what is not there yet, most useful first.
 *
 * Every segment is saved when it is done, so that a run which is stopped at any moment is resumed by the next. What
 * changes on disk afterwards is read again when the files have been quiet for a moment.
 */

import { limits } from "../config";
import type { ContextRecord, SegmentRecord } from "../contexts/context";
import type { RepositoryContext } from "../contexts/repositoryContext";
import type { ContextStore } from "../contexts/store";
import { pathWithin } from "../documents/documents";
import type { Log } from "../log";
import type { EngineSettings, FileState } from "../protocol";
import type { Sessions } from "../sessions/sessions";
import { SharedWork } from "../util/sharedWork";
import { IndexRun, type IndexMemory, type IndexRequest, type Summary } from "./indexRun";
import { ProgressReport, type ProgressState } from "./progress";
import { FileReader } from "./reader";
import { dropBegun } from "./segmentReading";

export interface IndexingOptions {
  readonly sessions: Sessions;
  readonly store: ContextStore;
  readonly log: Log;
  /** Absolute paths of the files that are open in an editor. */
  readonly openFiles: () => readonly string[];
  /** What runs, or a context, changed. */
  readonly onChange: () => void;
}

interface Run {
  readonly work: SharedWork<Summary, ProgressState>;
  readonly report: ProgressReport;
  reading: SegmentRecord | undefined;
}

interface RootState extends IndexMemory {
  run: Run | undefined;
  timer: NodeJS.Timeout | undefined;
  settings: EngineSettings | undefined;
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

  /** Reads again what was lost of a repository, as it was read before, and waits for it. */
  async repair(root: string, settings: EngineSettings, signal: AbortSignal): Promise<void> {
    const [record] = this.#options.store.recordsOf(root);
    if (record === undefined) return;
    this.#options.log.info(`Reading again what was damaged of ${root}`);
    const { editorExcludes, ...same } = record.options;
    await this.index({ root, editorExcludes, settings: { ...settings, ...same }, signal, onProgress: () => undefined });
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
    const { sessions, store, log, openFiles, onChange } = this.#options;
    const report = new ProgressReport((progress) => {
      run.work.tell(progress);
      this.#options.onChange();
    });
    const onReading = (segment: SegmentRecord | undefined): void => {
      run.reading = segment;
    };
    const work = new SharedWork<Summary, ProgressState>((signal) =>
      new IndexRun({ sessions, store, log, openFiles, onChange, memory: state, request, signal, report, onReading })
        .result()
        .finally(() => {
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

/** Whether a change of this file is none of the context's business: a build's output, git's own files. */
function isOutside(record: ContextRecord, path: string): boolean {
  if (path.startsWith(".git/")) return true;
  return record.leftOut.some((left) => left.path.endsWith("/") && path.startsWith(left.path));
}
