/**
 * Files → segments: pure, deterministic, and stable under edits.
 */

import type { VocabularyLines } from "../tokenizer/lines";

export interface TokenizedFile {
  /** Relative to the root, with forward slashes. */
  readonly path: string;
  /** Tokens of the line that opens the file: prompts/segment.ts. */
  readonly headerTokens: Uint32Array;
  /** Tokens of the line that opens every part of a long file but the first. */
  readonly continuedHeaderTokens: Uint32Array;
  /** Tokens of the content, ending in a newline. */
  readonly tokens: Uint32Array;
}

export interface SegmentOptions {
  /** S: no segment is longer. */
  readonly segmentTokensMax: number;
  /** Size of the blocks that `blockLines` describes. */
  readonly blockTokens: number;
  readonly lines: VocabularyLines;
}

/** A file's stay in a segment. */
export interface SegmentFile {
  readonly path: string;
  /** First token of its header line and one past its last token, counted in the segment. */
  readonly tokenStart: number;
  readonly tokenEnd: number;
  /** Line, from 1, of the first content token here: 1 unless this is a later part of a long file. */
  readonly firstLine: number;
}

export interface BlockSpan {
  readonly path: string;
  /** From 1, inclusive. */
  readonly startLine: number;
  readonly endLine: number;
}

export interface SegmentPlan {
  readonly files: readonly SegmentFile[];
  readonly tokens: Uint32Array;
  /** SHA-256 of the tokens (as little-endian uint32), hex. Not yet the key of a saved segment: model, header and the rest are joined to it by whoever saves. */
  readonly contentKey: string;
  /** For each block of `blockTokens` tokens the lines it covers, in order. A block inside a header line counts as the file's next line. */
  readonly blockLines: readonly (readonly BlockSpan[])[];
}

/** All segments at once; planSegmentsLazily for callers that must not block. */
export declare function planSegments(files: readonly TokenizedFile[], options: SegmentOptions): SegmentPlan[];

/**
 * One segment at a time, in order of path; a step takes a millisecond or so. The same files give the same segments; an edit of one file changes the
 * segments that hold it and no other.
 */
export declare function planSegmentsLazily(
  files: readonly TokenizedFile[],
  options: SegmentOptions,
): Generator<SegmentPlan>;
