/** How much work one native command is given. Pure but for the speed it remembers. */

/** Native prefill runs on a grid of so many positions (kChunkTokens); whole multiples never split a chunk. */
const gridTokens = 128;

/** A chunk is never larger unless told so, so that progress is seen to move. */
const chunkTokensMax = 8_192;

/** Follows the speed of prefill and sizes the next chunk to last about `targetMs`. */
export class ChunkBudget {
  readonly #targetMs: number;
  readonly #tokensMax: number;
  #tokensPerSecond = 0;

  constructor(targetMs: number, tokensMax = chunkTokensMax) {
    this.#targetMs = targetMs;
    this.#tokensMax = tokensMax;
  }

  /** 0 until something was measured. */
  get tokensPerSecond(): number {
    return this.#tokensPerSecond;
  }

  nextTokens(): number {
    const wanted = (this.#tokensPerSecond * this.#targetMs) / 1000;
    const chunks = Math.max(1, Math.floor(wanted / gridTokens));
    return Math.min(this.#tokensMax, chunks * gridTokens);
  }

  /** Half of what is believed comes from the last second or so, so that a busy machine is noticed. */
  measured(tokens: number, ms: number): void {
    if (tokens <= 0 || ms <= 0) return;
    const now = (tokens * 1000) / ms;
    this.#tokensPerSecond = this.#tokensPerSecond === 0 ? now : this.#tokensPerSecond * 0.7 + now * 0.3;
  }
}

/** Decode steps of the n-th command of an answer: one for the first token, then more, and never so many that a stop is felt. */
export function decodeSteps(command: number): number {
  return command === 0 ? 1 : command < 4 ? 2 : 4;
}
