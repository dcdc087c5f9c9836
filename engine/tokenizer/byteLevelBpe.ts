/**
 * Byte-level BPE over the lists of a GGUF file as they lie there. The library does the same, and does it for tokenizer.json; but it takes over half a
 * second to take in 150,000 merges, which is most of what an engine may take to its first token after a restart.
 */

import { byteLevelText } from "./bytes";
import { mergeSymbols } from "./merging";
import type { GgufVocabulary } from "./vocabulary";

export interface ByteLevelOptions {
  /** A word that is a token as it stands is not merged step by step. */
  readonly ignoreMerges: boolean;
}

/** The function expects one word and gives its ids. */
export function byteLevelEncoder(
  vocabulary: GgufVocabulary,
  { ignoreMerges }: ByteLevelOptions,
): (word: string) => number[] {
  const ids = new Map<string, number>();
  vocabulary.tokens.forEach((token, id) => ids.set(token, id));
  const ranks = new Map<string, number>();
  vocabulary.merges.forEach((merge, rank) => {
    // Of a pair that is listed twice the first counts.
    if (!ranks.has(merge)) ranks.set(merge, rank);
  });

  return (word) => {
    const text = byteLevelText(word);
    const whole = ignoreMerges ? ids.get(text) : undefined;
    if (whole !== undefined) return [whole];
    const borders = mergeSymbols(
      Array.from({ length: text.length + 1 }, (_, at) => at),
      (start, middle, end) => ranks.get(`${text.slice(start, middle)} ${text.slice(middle, end)}`),
    );
    const found: number[] = [];
    for (let at = 1; at < borders.length; at++) {
      const piece = text.slice(borders[at - 1], borders[at]);
      const id = ids.get(piece);
      // A byte that the vocabulary lacks is passed over, as llama.cpp does.
      if (id !== undefined) found.push(id);
      else for (const byte of piece) found.push(...idsOf(ids, byte));
    }
    return found;
  };
}

function idsOf(ids: ReadonlyMap<string, number>, byte: string): readonly number[] {
  const id = ids.get(byte);
  return id === undefined ? [] : [id];
}
