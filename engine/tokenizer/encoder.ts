/**
 * Text → ids, in the calling thread. The worker holds one; nothing else does.
 */

import type { TokenBytes } from "../native/addon";
import { byteLevelBytes, sentencePieceBytes, tokenBytesTable } from "./bytes";
import { tokenTypes, type Vocabulary } from "./vocabulary";

/** How one kind of vocabulary encodes. */
export interface Scheme {
  /** Parts of a text that encode independently of each other, small enough to yield in between where that is possible. */
  chunks(text: string): Iterable<string>;
  words(chunk: string): readonly string[];
  /** Ids of one word. */
  encodeWord(word: string): readonly number[];
  /** Whether user-defined tokens are found in every text, as that kind of vocabulary expects, or only where special tokens are. */
  readonly userDefinedAnywhere: boolean;
}

export interface EncoderTables {
  readonly tokenBytes: TokenBytes;
  /** Text → id of control and user-defined tokens. */
  readonly special: ReadonlyMap<string, number>;
  readonly controlIds: readonly number[];
}

/** Words are few and repeat: their ids are kept, up to this many words of at most this length. */
const cachedWordsMax = 100_000;
const cachedWordCharactersMax = 64;

export class Encoder {
  readonly vocabulary: Vocabulary;
  readonly addBos: boolean;
  readonly #scheme: Scheme;
  readonly #control: Marks;
  readonly #userDefined: Marks;
  #cache = new Map<string, readonly number[]>();

  constructor(vocabulary: Vocabulary, scheme: Scheme, addBos: boolean) {
    this.vocabulary = vocabulary;
    this.addBos = addBos;
    this.#scheme = scheme;
    this.#control = marksOf(vocabulary, [tokenTypes.control, tokenTypes.userDefined]);
    this.#userDefined = scheme.userDefinedAnywhere ? marksOf(vocabulary, [tokenTypes.userDefined]) : noMarks;
  }

  /** Ids of `text`, yielded after every part that took some time, so that the caller may look at other work in between. */
  *encode(text: string, special: boolean): Generator<undefined, Uint32Array> {
    const ids: number[] = [];
    const marks = special ? this.#control : this.#userDefined;
    for (const part of marks.pattern === undefined ? [text] : text.split(marks.pattern)) {
      const mark = marks.ids.get(part);
      if (mark !== undefined) {
        ids.push(mark);
        continue;
      }
      if (part === "") continue;
      for (const chunk of this.#scheme.chunks(part)) {
        for (const word of this.#scheme.words(chunk)) for (const id of this.#wordIds(word)) ids.push(id);
        yield;
      }
    }
    return Uint32Array.from(ids);
  }

  encodeAtOnce(text: string, special: boolean): Uint32Array {
    const steps = this.encode(text, special);
    for (;;) {
      const step = steps.next();
      if (step.done === true) return step.value;
    }
  }

  tables(): EncoderTables {
    const { tokens, types, spelling } = this.vocabulary;
    const hidden: readonly number[] = [tokenTypes.control, tokenTypes.unused, tokenTypes.unknown];
    return {
      tokenBytes: tokenBytesTable(tokens, types, spelling === "byteLevel" ? byteLevelBytes : sentencePieceBytes),
      special: this.#control.ids,
      controlIds: tokens.flatMap((_, id) => (hidden.includes(types[id] ?? tokenTypes.unused) ? [id] : [])),
    };
  }

  #wordIds(word: string): readonly number[] {
    const known = this.#cache.get(word);
    if (known !== undefined) return known;
    const ids = this.#scheme.encodeWord(word);
    if (word.length <= cachedWordCharactersMax) {
      if (this.#cache.size >= cachedWordsMax) this.#cache = new Map();
      this.#cache.set(word, ids);
    }
    return ids;
  }
}

interface Marks {
  /** Splits a text at the marks and keeps them. Undefined when there are none. */
  readonly pattern: RegExp | undefined;
  readonly ids: ReadonlyMap<string, number>;
}

const noMarks: Marks = { pattern: undefined, ids: new Map() };

function marksOf(vocabulary: Vocabulary, types: readonly number[]): Marks {
  const ids = new Map<string, number>();
  vocabulary.tokens.forEach((token, id) => {
    if (token !== "" && types.includes(vocabulary.types[id] ?? tokenTypes.normal)) ids.set(token, id);
  });
  if (ids.size === 0) return noMarks;
  // The longest first: of two marks that begin alike the longer one is meant.
  const longestFirst = [...ids.keys()].sort((a, b) => b.length - a.length);
  return { pattern: new RegExp(`(${longestFirst.map(escaped).join("|")})`, "u"), ids };
}

function escaped(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
}
