/**
 * How much live text a completion sees: as much as can be read in the time a person waits, in few sizes, as another
 * size means reading all of it again. Owns the measured speed.
 */

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

  /** Read again with every key, so it is short. */
  get suffixTokensMax(): number {
    return Math.min(96, this.#tokens / 8);
  }

  /** `tokens` of the window were read in `ms`. One size up or down at most, and up only with room to spare. */
  measured(tokens: number, ms: number): void {
    if (tokens < measuredTokensMin || ms <= 0) return;
    const possible = (tokens * targetMs) / ms;
    if (possible < this.#tokens / 2) this.#tokens = Math.max(tokensMin, this.#tokens / 2);
    else if (possible > this.#tokens * 3) this.#tokens = Math.min(tokensMax, this.#tokens * 2);
  }
}
