/**
 * How much live text a completion sees: as much as can be read in the time a person waits, in few sizes, as another
 * size means reading all of it again. Owns the measured speed.
 */

import type { CompletionOrder } from "../native/addon";

/** Reading the window for the first time may take about this long. */
const targetMs = 800;
const tokensMin = 128;
const tokensMax = 1_024;
const tokensFirst = 256;
/** Fewer tokens than this say little about speed. */
const measuredTokensMin = 24;

export class CompletionWindow {
  #tokens = tokensFirst;

  get prefixTokensMax(): number {
    return this.#tokens;
  }

  /** Behind what is typed it is read again with every key, so it is short; before that, once, and so are more where that is quick. */
  suffixTokensMax(order: CompletionOrder): number {
    return suffixTokensFor(this.#tokens, order);
  }

  /** `tokens` of the window were read in `ms`. One size up or down at most, and up only with room to spare. */
  measured(tokens: number, ms: number): void {
    if (tokens < measuredTokensMin || ms <= 0) return;
    const possible = (tokens * targetMs) / ms;
    if (possible < this.#tokens / 2) this.#tokens = Math.max(tokensMin, this.#tokens / 2);
    else if (possible > this.#tokens * 3) this.#tokens = Math.min(tokensMax, this.#tokens * 2);
  }
}

/** Most tokens behind the cursor where there are so many before it. */
export function suffixTokensFor(prefixTokensMax: number, order: CompletionOrder): number {
  if (order === "suffix-first" && prefixTokensMax > tokensFirst) return prefixTokensMax / 4;
  return Math.min(96, prefixTokensMax / 8);
}
