/**
 * Files → segments: pure, deterministic, and stable under edits.
 */

import { createHash } from "node:crypto";
import { countLines, type VocabularyLines } from "../tokenizer/lines";
import { stableSeam } from "../tokenizer/seam";
import { groupSiblings } from "./grouping";

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

/** Below this a header line would leave no room for content. */
const segmentTokensLeast = 128;

/** All segments at once; planSegmentsLazily for callers that must not block. */
export function planSegments(files: readonly TokenizedFile[], options: SegmentOptions): SegmentPlan[] {
  return [...planSegmentsLazily(files, options)];
}

/**
 * One segment at a time, folder by folder; a step takes a millisecond or so. The same files give the same segments in the same order, whatever their
 * order; an edit of one file changes the segments that hold it and no other.
 */
export function* planSegmentsLazily(
  files: readonly TokenizedFile[],
  options: SegmentOptions,
): Generator<SegmentPlan, void, undefined> {
  const { segmentTokensMax } = options;
  if (segmentTokensMax < segmentTokensLeast) {
    throw new RangeError(`Segments of ${segmentTokensMax} tokens are too short; ${segmentTokensLeast} is the least.`);
  }
  for (const group of groupSiblings(files, tokensOf, segmentTokensMax)) {
    if (group.length > 1) yield segmentOf(group.map(wholeFile), options);
    else for (const file of group) for (const part of partsOf(file, options)) yield segmentOf([part], options);
  }
}

/** A stretch of a file under its header line. */
interface Part {
  readonly path: string;
  readonly header: Uint32Array;
  readonly tokens: Uint32Array;
  readonly firstLine: number;
}

function tokensOf(file: TokenizedFile): number {
  return file.headerTokens.length + file.tokens.length;
}

function wholeFile(file: TokenizedFile): Part {
  return { path: file.path, header: file.headerTokens, tokens: file.tokens, firstLine: 1 };
}

function* partsOf(file: TokenizedFile, { segmentTokensMax, lines }: SegmentOptions): Generator<Part> {
  // A path of thousands of characters must not crowd out the content.
  const headerMax = segmentTokensMax >> 1;
  let header = file.headerTokens.subarray(0, headerMax);
  let start = 0;
  let firstLine = 1;
  for (;;) {
    const end = partEnd(file.tokens, start, segmentTokensMax - header.length, lines);
    yield { path: file.path, header, tokens: file.tokens.subarray(start, end), firstLine };
    if (end === file.tokens.length) return;
    firstLine += countLines(lines, file.tokens, start, end);
    start = end;
    header = file.continuedHeaderTokens.subarray(0, headerMax);
  }
}

/** Where the part that begins at `start` ends: at a stable seam in the second half of what fits. */
function partEnd(tokens: Uint32Array, start: number, tokensMax: number, lines: VocabularyLines): number {
  if (tokens.length - start <= tokensMax) return tokens.length;
  const last = start + tokensMax;
  return stableSeam(tokens, start + (tokensMax >> 1), last, lines) ?? last;
}

function segmentOf(parts: readonly Part[], options: SegmentOptions): SegmentPlan {
  const tokens = new Uint32Array(parts.reduce((sum, part) => sum + part.header.length + part.tokens.length, 0));
  const files: SegmentFile[] = [];
  const blockLines: BlockSpan[][] = Array.from({ length: Math.ceil(tokens.length / options.blockTokens) }, () => []);
  let at = 0;
  for (const part of parts) {
    const tokenEnd = at + part.header.length + part.tokens.length;
    tokens.set(part.header, at);
    tokens.set(part.tokens, at + part.header.length);
    files.push({ path: part.path, tokenStart: at, tokenEnd, firstLine: part.firstLine });
    addSpans(part, at, options, blockLines);
    at = tokenEnd;
  }
  const bytes = Buffer.from(tokens.buffer, tokens.byteOffset, tokens.byteLength);
  return { files, tokens, contentKey: createHash("sha256").update(bytes).digest("hex"), blockLines };
}

/** Adds to each block that `part`, placed at token `at`, touches the lines it has there. */
function addSpans(part: Part, at: number, { blockTokens, lines }: SegmentOptions, into: readonly BlockSpan[][]): void {
  const contentStart = at + part.header.length;
  const end = contentStart + part.tokens.length;
  let line = part.firstLine;
  for (let from = at; from < end;) {
    const block = Math.floor(from / blockTokens);
    const to = Math.min((block + 1) * blockTokens, end);
    const startLine = line;
    let endLine = line;
    for (let index = Math.max(from, contentStart); index < to; index++) {
      const token = part.tokens[index - contentStart] ?? 0;
      line += lines.newlines[token] ?? 0;
      // A newline belongs to the line it ends.
      endLine = lines.endsLine[token] === 1 ? line - 1 : line;
    }
    into[block]?.push({ path: part.path, startLine, endLine });
    from = to;
  }
}
