/** One pass over a repository: scan, tokenise, plan, and read what is missing. */

import { type ContextRecord, type SegmentRecord } from "../contexts/context";
import type { RepositoryContext } from "../contexts/repositoryContext";
import type { ContextStore } from "../contexts/store";
import { pathWithin } from "../documents/documents";
import { Cancelled, EngineError } from "../errors";
import type { Log } from "../log";
import type { EngineSettings, IndexSummary } from "../protocol";
import { scan, type ScanResult } from "../repository/scanner";
import { computeChatBase } from "../sessions/prepareChats";
import type { Session } from "../sessions/session";
import type { Sessions } from "../sessions/sessions";
import { fileChanges } from "./fileChanges";
import { plan } from "./plan";
import type { ProgressReport, ProgressState } from "./progress";
import type { FileReader } from "./reader";
import { filesDone, SegmentReading, type BegunSegment } from "./segmentReading";
import { byUsefulness } from "./usefulness";

export interface IndexRequest {
  /** Canonical. */
  readonly root: string;
  readonly editorExcludes: Readonly<Record<string, boolean>>;
  /** Files, and folders with a slash at the end, that are read anew although they did not change. */
  readonly reread?: readonly string[];
  readonly settings: EngineSettings;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: ProgressState) => void;
}

export type Summary = Omit<IndexSummary, "root">;

/** What one run leaves for the next. */
export interface IndexMemory {
  readonly reader: FileReader;
  /** Relative paths that changed since they were read. */
  readonly stale: Set<string>;
  begun: BegunSegment | undefined;
}

export interface IndexRunOptions {
  readonly sessions: Sessions;
  readonly log: Log;
  readonly memory: IndexMemory;
  readonly store: ContextStore;
  readonly request: Pick<IndexRequest, "root" | "editorExcludes" | "reread" | "settings">;
  readonly signal: AbortSignal;
  readonly report: ProgressReport;
  /** Absolute paths of the files that are open in an editor. */
  readonly openFiles: () => readonly string[];
  readonly onReading: (segment: SegmentRecord | undefined) => void;
  /** The context's description changed. */
  readonly onChange: () => void;
}

/** One pass over a repository. */
export class IndexRun {
  readonly #options: IndexRunOptions;
  readonly #request: IndexRunOptions["request"];
  readonly #signal: AbortSignal;
  readonly #report: ProgressReport;
  readonly #startedAt = performance.now();
  #tokensRead = 0;
  #summary: Summary = { files: 0, tokens: 0, tokensRead: 0, leftOut: 0, seconds: 0, complete: false };

  constructor(options: IndexRunOptions) {
    this.#options = options;
    this.#request = options.request;
    this.#signal = options.signal;
    this.#report = options.report;
  }

  async result(): Promise<Summary> {
    try {
      await this.#run();
    } catch (error) {
      if (!(error instanceof Cancelled)) throw error;
    }
    const seconds = (performance.now() - this.#startedAt) / 1000;
    return { ...this.#summary, tokensRead: this.#tokensRead, seconds };
  }

  async #run(): Promise<void> {
    const { root, settings, editorExcludes } = this.#request;
    const stale = [...this.#options.memory.stale];
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
      await this.#options.store.limit(settings);
      const context = await session.context(root);
      await context.header();
      await context.discard(this.#toReread(context));
      if (!this.#unchanged(context, scanned)) await this.#read(session, context, scanned);
      else this.#summarise(context);
      // Not waited for: it goes on behind whatever comes next, unless it was all to stop.
      void computeChatBase(session, context, this.#options.log);
    });
    for (const path of stale) this.#options.memory.stale.delete(path);
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

  /** Keys of the segments that hold something to be read anew. */
  #toReread({ record }: RepositoryContext): readonly string[] {
    const wanted = this.#request.reread ?? [];
    const isWanted = (path: string): boolean =>
      wanted.some((each) => each === "/" || (each.endsWith("/") ? path.startsWith(each) : path === each));
    return (record?.segments ?? []).filter(({ files }) => files.some(isWanted)).map(({ key }) => key);
  }

  async #read(session: Session, context: RepositoryContext, scanned: ScanResult): Promise<void> {
    const { root, settings } = this.#request;
    const tokensMax = Math.min(settings.contextTokensMax, session.plan.contextTokensMax);
    if (tokensMax < settings.contextTokensMax)
      this.#options.log.info(`The budgets of memory and disk leave room for ${tokensMax} tokens of ${root}`);
    this.#report.set({ stage: "scanning", filesDone: 0 });
    const open = new Set(this.#options.openFiles().map((file) => pathWithin(root, file) ?? ""));
    const read = await this.#options.memory.reader.read({
      root,
      files: byUsefulness(scanned.files, open),
      text: session.text,
      fileBytesMax: settings.fileKilobytesMax * 1024,
      tokensMax,
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
    const { signal, memory, onReading } = this.#options;
    const onDone = (): void => this.#summarise(context);
    const reading = new SegmentReading({ session, context, signal, report: this.#report, memory, onReading, onDone });
    try {
      await reading.beginFromOlder(planned.record, missing);
      await context.describe(planned.record, fileChanges(context.record, planned.record, read));
      this.#summarise(context);
      this.#options.onChange();
      await reading.read(planned.record, missing);
    } finally {
      this.#tokensRead = reading.tokensRead;
      reading.dispose();
    }
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

function nothingToRead(root: string): EngineError {
  return new EngineError(
    "repositoryEmpty",
    `There is nothing to read in ${root}: no text files are left after ignore rules, excludes and the size limit.`,
  );
}
