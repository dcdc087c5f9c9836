/**
 * The text around a cursor → the tail that asks for what is missing there.
 */

import { countLines } from "../tokenizer/lines";
import { stableSeam } from "../tokenizer/seam";
import { joined, type Tokenizer } from "../tokenizer/tokenizer";
import type { PromptFormat } from "./format";
import { fileHeaderPieces } from "./segment";

export interface CompletionTailOptions {
  /** Relative to the root, with forward slashes. */
  readonly path: string;
  /** Text before the cursor, best of all the whole of it: what is looked at begins at a line that stays the same while the user types. */
  readonly prefix: string;
  readonly suffix: string;
  readonly prefixTokensMax: number;
  readonly suffixTokensMax: number;
}

export interface CompletionTail {
  readonly tokens: Uint32Array;
  /** So many of the first ones stay when typing goes on. */
  readonly stableTokens: number;
  /** Newlines of the text that were taken before and behind the cursor. */
  readonly linesBefore: number;
  readonly linesAfter: number;
}

export type Encoder = Pick<Tokenizer, "encode" | "lines">;

/** Characters that are encoded for each token that is kept, so that a huge file costs no more than its window. */
const charactersPerToken = 12;

/** The tokens of the last word may be others once it has another letter. */
const typedTokensMax = 4;

/**
 * A model that was not taught to fill in the middle sees the prefix alone. One that sees the suffix first goes on with the
 * prefix, as if it had written that itself: what is typed comes last, and is all that has to be read.
 */
export async function completionTail(
  encoder: Encoder,
  format: PromptFormat,
  options: CompletionTailOptions,
): Promise<CompletionTail> {
  const { fim, completionOrder } = format;
  const prefixStart = Math.max(0, options.prefix.length - options.prefixTokensMax * charactersPerToken);
  const header = fileHeaderPieces(format, options.path);
  const [
    prefix = nothing,
    suffix = nothing,
    prefixMark = nothing,
    suffixMark = nothing,
    middleMark = nothing,
    ...headerTokens
  ] = await encoder.encode([
    { text: options.prefix.slice(prefixStart), special: false },
    {
      text: fim === undefined ? "" : options.suffix.slice(0, options.suffixTokensMax * charactersPerToken),
      special: false,
    },
    { text: fim?.prefix ?? "", special: true },
    { text: fim?.suffix ?? "", special: true },
    { text: fim?.middle ?? "", special: true },
    ...header,
  ]);
  const before = prefixWindow(prefix, options.prefixTokensMax, encoder);
  const after = suffixWindow(suffix, options.suffixTokensMax, encoder);
  const isSuffixFirst = completionOrder === "suffix-first";
  const beginning = [...headerTokens, prefixMark, ...(isSuffixFirst ? [suffixMark, after, middleMark] : [])];
  const tokens = joined([...beginning, before, ...(isSuffixFirst ? [] : [suffixMark, after, middleMark])]);
  const beginningTokens = beginning.reduce((total, part) => total + part.length, 0);
  return {
    tokens,
    stableTokens: beginningTokens + Math.max(0, before.length - typedTokensMax),
    linesBefore: countLines(encoder.lines, before),
    linesAfter: countLines(encoder.lines, after),
  };
}

const nothing = new Uint32Array();

/**
 * The last tokens, from a line on that stays the first one for many key presses, so that what was computed of them is of use again. Half of them may go
 * for that: what is left out is attended to as the rest of the file is, and the next first line costs reading all that follows it.
 */
function prefixWindow(tokens: Uint32Array, tokensMax: number, { lines }: Encoder): Uint32Array {
  if (tokens.length <= tokensMax) return tokens;
  const from = tokens.length - tokensMax;
  return tokens.subarray(stableSeam(tokens, from, from + (tokensMax >> 1), lines) ?? from);
}

/** The first tokens, whole lines of them unless that would lose more than half. */
function suffixWindow(tokens: Uint32Array, tokensMax: number, { lines }: Encoder): Uint32Array {
  if (tokens.length <= tokensMax) return tokens;
  for (let end = tokensMax; end > tokensMax >> 1; end--) {
    if (lines.endsLine[tokens[end - 1] ?? 0] === 1) return tokens.subarray(0, end);
  }
  return tokens.subarray(0, tokensMax);
}
