/** What a segment says, kept so that names can be found in it. */

import type { TokenBytes } from "../native/addon";

/** Where a segment mentions a name. */
export interface Mention {
  /** Blocks from the first of the line up to the one that holds what follows the name. */
  readonly from: number;
  /** Exclusive. */
  readonly to: number;
  /** Whether the line reads as if it were the one that says what the name is. */
  readonly defines: boolean;
}

/** Behind a name, so many bytes must be seen with it: a block may end where a definition has just begun. */
const seenBehind = 80;

/** Longer lines were not written by hand; what stands that far before a name says little of it. */
const lineMax = 400;

export class SegmentText {
  readonly #bytes: Buffer;
  /** Where blocks begin, and the end. */
  readonly #starts: Uint32Array;

  constructor(tokens: Uint32Array, { bytes, offsets }: TokenBytes, blockTokens: number) {
    const starts = new Uint32Array(Math.ceil(tokens.length / blockTokens) + 1);
    let length = 0;
    tokens.forEach((token, at) => {
      if (at % blockTokens === 0) starts[at / blockTokens] = length;
      length += (offsets[token + 1] ?? 0) - (offsets[token] ?? 0);
    });
    starts[starts.length - 1] = length;
    this.#starts = starts;
    this.#bytes = Buffer.alloc(length);
    let at = 0;
    for (const token of tokens) {
      const end = offsets[token + 1] ?? 0;
      for (let from = offsets[token] ?? 0; from < end; from++) this.#bytes[at++] = bytes[from] ?? 0;
    }
  }

  /** Every place, in order, where `name` stands as a whole word; at most `countMax`. */
  mentions(name: string, countMax: number): readonly Mention[] {
    const wanted = Buffer.from(name, "utf8");
    const found: Mention[] = [];
    if (wanted.length === 0) return found;
    let at = this.#bytes.indexOf(wanted);
    while (at >= 0 && found.length < countMax) {
      const end = at + wanted.length;
      if (!isWordByte(this.#bytes[at - 1]) && !isWordByte(this.#bytes[end])) found.push(this.#mention(at, end));
      at = this.#bytes.indexOf(wanted, end);
    }
    return found;
  }

  #mention(at: number, end: number): Mention {
    const lineStart = Math.max(this.#bytes.lastIndexOf(newline, at) + 1, at - lineMax);
    const next = this.#bytes.indexOf(newline, end);
    const lineEnd = Math.min(next < 0 ? this.#bytes.length : next, end + lineMax);
    return {
      from: this.#blockOf(lineStart),
      to: this.#blockOf(Math.min(end + seenBehind, this.#bytes.length) - 1) + 1,
      defines: defines(this.#bytes.toString("utf8", lineStart, at), this.#bytes.toString("utf8", end, lineEnd)),
    };
  }

  /** The block that holds byte `at`. */
  #blockOf(at: number): number {
    let low = 0;
    let high = this.#starts.length - 2;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if ((this.#starts[middle] ?? 0) <= at) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

const newline = 10;

/** Bytes of letters outside of ASCII count as letters. */
function isWordByte(byte: number | undefined): boolean {
  if (byte === undefined) return false;
  const isLetter = (byte >= 65 && byte <= 90) || (byte >= 97 && byte <= 122) || byte >= 128;
  return isLetter || (byte >= 48 && byte <= 57) || byte === 95 || byte === 36;
}

/** Words that stand right before what they introduce, in the languages that people read here. */
const introduces =
  /(?:^|[^\w$.])(?:function\*?|class|def|defp|fn|func|fun|const|let|var|val|type|typedef|interface|struct|enum|union|trait|protocol|module|namespace|package|macro|macro_rules!|define|object|record|sub|proc|get|set|table|view)[\s*&]+$/;
/** A method's receiver stands between. */
const receiver = /\bfunc\s*\([^)]*\)\s*$/;
/** Nothing, or what may stand before the name of a member or a variable. */
const modifiers =
  /^\s*(?:(?:export|default|declare|public|private|protected|internal|static|async|abstract|override|readonly|final|virtual|inline|extern|constexpr|pub(?:\([^)]*\))?|unsafe|mut)\s+)*[*&#@"'-]?\s*$/;
/** A type as C and its heirs write it before the name. */
const typeBefore =
  /^\s*(?!return\b|throw\b|new\b|await\b|yield\b|else\b|case\b|goto\b|delete\b|import\b|in\b|not\b|and\b|or\b)[A-Za-z_][\w:<>,.\s*&[\]?~]*[\s*&]$/;

/** Whether a line defines the name between `before` and `after`. A guess by its shape, for any language. */
function defines(before: string, after: string): boolean {
  if (introduces.test(before) || receiver.test(before)) return true;
  const isAssigned = /^\s*(?::[^=;(]+)?(?::|\?)?=(?![=>])/.test(after);
  const isKey = /^["']?\s*\??\s*:(?!:)/.test(after) && !/^\s*:\s*$/.test(after);
  const opensBody = /^\s*(?:<[^>]*>)?\s*\((?:[^;]*\{\s*|[^;()]*|[^;]*\)\s*(?::[^;{]*|->[^;{]*)?:?\s*)$/.test(after);
  if (modifiers.test(before)) return isAssigned || isKey || (opensBody && /[{,(:]\s*$/.test(after));
  return typeBefore.test(before) && (isAssigned || opensBody || /^\s*(?:;|\[)/.test(after));
}
