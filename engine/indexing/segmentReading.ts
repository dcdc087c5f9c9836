/** Prefill of the segments that are missing, one after the other, each saved while it is read and when it is done. */

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

/** What is computed is saved this often where reading is slow, and at the latest after so much where it is fast: a kill loses no more. */
const checkpointTokens = 512;
const commandTokensMax = 2_048;

export class SegmentReading {
  readonly #options: SegmentReadingOptions;
  readonly #job: Job;
  readonly #budget = new ChunkBudget(progressMs, commandTokensMax);
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
   * Takes copies of segments that hold an earlier state of the same files: only what follows the first difference has to
   * be computed again. To be called before a new description, `record`, lets the old segments go.
   */
  async beginFromOlder(record: ContextRecord, missing: readonly PlannedSegment[]): Promise<void> {
    const { session, context } = this.#options;
    const place = placesOf(record.segments);
    const older = new Map([...placesOf(context.record?.segments ?? [])].map(([key, at]) => [at, key]));
    for (const { record: segment } of missing) {
      const key = older.get(place.get(segment.key) ?? "");
      // One that still serves must not be given up, and is only of use where it differs, which it hardly does.
      if (key === undefined || key === segment.key) continue;
      const sequence = await context.sequenceOf(this.#job, key);
      if (sequence === undefined) continue;
      this.#older.set(segment.key, await session.scheduler.upkeep(() => sequence.fork()));
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

  /** Where what was computed before, of this segment or of an older one, turns out to be damaged, it is read from its beginning. */
  async #readOne(segment: PlannedSegment, tokensBefore: number): Promise<void> {
    try {
      await this.#tryOne(segment, tokensBefore);
    } catch (error) {
      if (!(await this.#options.context.letGoOfDamage(error, segment.record.key))) throw error;
      await this.#tryOne(segment, tokensBefore);
    }
  }

  async #tryOne(segment: PlannedSegment, tokensBefore: number): Promise<void> {
    const { session, context, report, memory, onReading } = this.#options;
    const { key, files } = segment.record;
    onReading(segment.record);
    report.set({ stage: "reading", path: files[0] ?? "" });
    const sequence = await this.#sequenceFor(segment);
    try {
      const { kept } = await session.scheduler.run(this.#job, () => sequence.setTokens(segment.tokens));
      let computed = kept;
      let saved = kept;
      await prefillAll(session.scheduler, this.#job, sequence, {
        budget: this.#budget,
        onProgress: async (done) => {
          this.#tokensRead += Math.max(0, done - computed);
          computed = done;
          report.speed(this.#budget.tokensPerSecond, tokensBefore + done);
          if (done - saved < checkpointTokens || done === segment.tokens.length) return;
          saved = done;
          await context.checkpoint(this.#job, key, sequence);
        },
      });
    } catch (error) {
      if (error instanceof Cancelled) memory.begun = { session, key, sequence };
      else free(session.scheduler, sequence);
      throw error;
    }
    report.set({ stage: "saving" });
    await context.add(this.#job, segment.record, sequence);
  }

  /** The sequence that a stopped run began, one that shares a beginning with this segment, or a new one. */
  async #sequenceFor(segment: PlannedSegment): Promise<NativeSequence> {
    const { context, session, memory } = this.#options;
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
    return (await context.begin(this.#job, key)).sequence;
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

/** By key: the first file of a segment, and the how-manieth segment it is that begins with it. */
function placesOf(segments: readonly SegmentRecord[]): ReadonlyMap<string, string> {
  const seen = new Map<string, number>();
  const places = new Map<string, string>();
  for (const { key, files } of segments) {
    const first = files[0] ?? "";
    const index = seen.get(first) ?? 0;
    seen.set(first, index + 1);
    places.set(key, `${index} ${first}`);
  }
  return places;
}
