/** Tokenised files → what a context is to hold, and in which order it is read. */

import { throwIfAborted } from "../errors";
import { recordVersion, segmentRecord, type ContextRecord, type SegmentRecord } from "../contexts/context";
import type { RepositoryContext } from "../contexts/repositoryContext";
import { planSegmentsLazily } from "../repository/segments";
import type { Session } from "../sessions/session";
import type { ReadResult } from "./reader";

export interface PlannedSegment {
  readonly record: SegmentRecord;
  readonly tokens: Uint32Array;
}

export interface Plan {
  readonly record: ContextRecord;
  /** Most useful first. */
  readonly order: readonly PlannedSegment[];
}

/** Planning gives way to other work after so long. */
const sliceMs = 8;

export interface PlanInput {
  readonly root: string;
  readonly name: string;
  readonly options: ContextRecord["options"];
  readonly read: ReadResult;
  /** Left out by the scan. */
  readonly leftOut: ContextRecord["leftOut"];
}

export async function plan(
  session: Session,
  context: RepositoryContext,
  input: PlanInput,
  signal: AbortSignal,
): Promise<Plan> {
  const { read } = input;
  const usefulness = new Map(read.files.map(({ record }, index) => [record.path, index]));
  const files = read.files.map(({ tokenized }) => tokenized).sort((a, b) => (a.path < b.path ? -1 : 1));
  const segments: PlannedSegment[] = [];
  let sliceAt = performance.now();
  for (const segment of planSegmentsLazily(files, {
    segmentTokensMax: session.segmentPositions,
    blockTokens: session.info.blockTokens,
    lines: session.text.lines,
  })) {
    segments.push({ record: segmentRecord(context.identity, segment), tokens: segment.tokens });
    if (performance.now() - sliceAt < sliceMs) continue;
    await new Promise((resolve) => setImmediate(resolve));
    throwIfAborted(signal);
    sliceAt = performance.now();
  }
  const first = ({ record }: PlannedSegment): number =>
    Math.min(...record.files.map((path) => usefulness.get(path) ?? Number.MAX_SAFE_INTEGER));
  const unique = [...new Map(segments.map((segment) => [segment.record.key, segment])).values()];
  return {
    order: [...unique].sort((a, b) => first(a) - first(b)),
    record: {
      version: recordVersion,
      root: input.root,
      name: input.name,
      model: session.resolved.id,
      options: input.options,
      fingerprint: session.info.fingerprint,
      segmentPositions: session.segmentPositions,
      header: { key: context.headerKey, tokens: context.identity.headerTokens.length },
      segments: unique.map(({ record }) => record),
      tails: [],
      files: read.files.map(({ record }) => record).sort((a, b) => (a.path < b.path ? -1 : 1)),
      leftOut: [...input.leftOut, ...read.leftOut],
    },
  };
}
