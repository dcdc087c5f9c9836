/** Prefill of the segments that are missing, one after the other, each saved when it is done. */

import { tokensOf, type ContextRecord, type SegmentRecord } from "../contexts/context";
import type { RepositoryContext } from "../contexts/repositoryContext";
import { free } from "../contexts/tails";
import { Cancelled, throwIfAborted } from "../errors";
import { prefillAll } from "../generation/prefill";
import type { NativeSequence } from "../native/addon";
import { ChunkBudget } from "../scheduler/budget";
import type { Job } from "../scheduler/scheduler";
import type { Session } from "../sessions/session";
import type { PlannedSegment } from "./plan";
import type { ProgressReport } from "./progress";

/** A segment that was begun when a run was stopped. */
export interface BegunSegment {
  readonly session: Session;
  readonly key: string;
  readonly sequence: NativeSequence;
}

export interface SegmentReadingOptions {
  readonly session: Session;
  readonly context: RepositoryContext;
  readonly signal: AbortSignal;
  readonly report: ProgressReport;
  /** Where a segment that could not be finished is left, and found again. */
  readonly memory: { begun: BegunSegment | undefined };
  /** Told which segment is being read. */
  readonly onReading: (segment: SegmentRecord | undefined) => void;
  /** A segment is done. */
  readonly onDone: () => void;
}

/** A prefill command of an index run lasts about this long, so that progress moves. */
const progressMs = 500;

export class SegmentReading {
  readonly #options: SegmentReadingOptions;
  readonly #job: Job;
  readonly #budget = new ChunkBudget(progressMs);
  /** Copies of older segments to begin with, by the key of the new one. */
  readonly #older = new Map<string, NativeSequence>();
  #tokensRead = 0;

  constructor(options: SegmentReadingOptions) {
    this.#options = options;
    this.#job = { kind: "indexing", signal: options.signal };
  }

  /** Tokens whose KV was computed. */
  get tokensRead(): number {
    return this.#tokensRead;
  }

  /**
   * Takes copies of loaded segments that hold an earlier state of the same files: only what follows the first
   * difference has to be computed again. To be called before a new description lets the old segments go.
   */
  async beginFromOlder(missing: readonly PlannedSegment[]): Promise<void> {
    const { session, context } = this.#options;
    const loaded = context.loadedSegments;
    for (const { record } of missing) {
      const candidates = loaded.filter(({ files }) => files[0] === record.files[0]);
      const [only] = candidates;
      const sequence = candidates.length === 1 && only !== undefined ? context.sequenceOf(only.key) : undefined;
      if (sequence === undefined) continue;
      this.#older.set(record.key, await session.scheduler.upkeep(() => sequence.fork()));
    }
  }

  async read(record: ContextRecord, missing: readonly PlannedSegment[]): Promise<void> {
    const { context, report, signal, onDone } = this.#options;
    let tokensDone = tokensOf(record) - missing.reduce((total, { tokens }) => total + tokens.length, 0);
    report.set({
      stage: "reading",
      tokensTotal: tokensOf(record),
      tokensDone,
      filesTotal: record.files.length,
      filesDone: filesDone(context, record),
    });
    for (const segment of missing) {
      throwIfAborted(signal);
      await this.#readOne(segment, tokensDone);
      tokensDone += segment.tokens.length;
      report.set({ tokensDone, filesDone: filesDone(context, record) });
      onDone();
    }
  }

  /** Frees the copies that were not needed. */
  dispose(): void {
    for (const sequence of this.#older.values()) free(this.#options.session.scheduler, sequence);
    this.#older.clear();
    this.#options.onReading(undefined);
  }

  async #readOne(segment: PlannedSegment, tokensBefore: number): Promise<void> {
    const { session, context, report, memory, onReading } = this.#options;
    const { key, files } = segment.record;
    onReading(segment.record);
    report.set({ stage: "reading", path: files[0] ?? "" });
    const sequence = await this.#sequenceFor(segment);
    try {
      const { kept } = await session.scheduler.run(this.#job, () => sequence.setTokens(segment.tokens));
      let computed = kept;
      await prefillAll(session.scheduler, this.#job, sequence, {
        budget: this.#budget,
        onProgress: (done) => {
          this.#tokensRead += Math.max(0, done - computed);
          computed = done;
          report.speed(this.#budget.tokensPerSecond, tokensBefore + done);
        },
      });
    } catch (error) {
      if (error instanceof Cancelled) memory.begun = { session, key, sequence };
      else free(session.scheduler, sequence);
      throw error;
    }
    report.set({ stage: "saving" });
    await context.add(this.#job, key, sequence);
  }

  /** The sequence that a stopped run began, one that shares a beginning with this segment, or a new one. */
  async #sequenceFor(segment: PlannedSegment): Promise<NativeSequence> {
    const { session, context, memory } = this.#options;
    const { key } = segment.record;
    if (memory.begun !== undefined && memory.begun.session === session && memory.begun.key === key) {
      const { sequence } = memory.begun;
      memory.begun = undefined;
      return sequence;
    }
    dropBegun(memory);
    const older = this.#older.get(key);
    if (older !== undefined) {
      this.#older.delete(key);
      return older;
    }
    const header = await context.header();
    const basePosition = context.segmentBase;
    return session.scheduler.upkeep((model) => model.createSequence({ basePosition, attends: [header] }));
  }
}

export function dropBegun(memory: { begun: BegunSegment | undefined }): void {
  const { begun } = memory;
  if (begun === undefined) return;
  memory.begun = undefined;
  free(begun.session.scheduler, begun.sequence);
}

/** Files whose every segment was read. */
export function filesDone(context: RepositoryContext, record: ContextRecord): number {
  const waiting = new Set<string>();
  for (const segment of record.segments) {
    if (!context.has(segment.key)) for (const path of segment.files) waiting.add(path);
  }
  return record.files.length - waiting.size;
}
