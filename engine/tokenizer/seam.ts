/**
 * Where to cut a long run of tokens so that an edit elsewhere leaves the cut where it was.
 */

import type { VocabularyLines } from "./lines";

/**
 * The line start in `[from, to]` whose following tokens hash lowest, after a blank line if there is one; undefined when no line starts there. The
 * choice depends on nearby tokens alone, so of two texts that share a stretch both are cut there alike.
 */
export function stableSeam(tokens: Uint32Array, from: number, to: number, lines: VocabularyLines): number | undefined {
  let best: number | undefined;
  let bestRank = Number.POSITIVE_INFINITY;
  for (let at = Math.max(from, 1); at <= Math.min(to, tokens.length); at++) {
    const before = tokens[at - 1] ?? 0;
    if (lines.endsLine[before] !== 1) continue;
    const rank = followingHash(tokens, at) + ((lines.newlines[before] ?? 0) > 1 ? 0 : 2 ** 32);
    if (rank < bestRank) {
      best = at;
      bestRank = rank;
    }
  }
  return best;
}

/** FNV-1a over the eight tokens from `at` on. */
function followingHash(tokens: Uint32Array, at: number): number {
  let hash = 0x811c9dc5;
  for (let index = at; index < Math.min(at + 8, tokens.length); index++) {
    hash = Math.imul(hash ^ (tokens[index] ?? 0), 0x01000193);
  }
  return hash >>> 0;
}
