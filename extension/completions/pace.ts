/**
 * How long to wait after a key before asking for a completion.
 *
 * A request that the next key cancels is wasted work, so the wait grows with the pause between keys; but where the
 * engine is fast a wasted request costs little, so the wait also shrinks with its latency. Measured, not configured.
 */
export class Pace {
  #keyGapMs = 180;
  #latencyMs = 400;
  #lastKeyAtMs = Number.NEGATIVE_INFINITY;

  /** A key was pressed. Pauses longer than a second are thinking, not typing. */
  keyPressed(nowMs: number): void {
    const gapMs = nowMs - this.#lastKeyAtMs;
    this.#lastKeyAtMs = nowMs;
    if (gapMs > 0 && gapMs < thinkingMs) this.#keyGapMs = blended(this.#keyGapMs, gapMs);
  }

  /** An answer took this long; a cancelled request says nothing. */
  answered(latencyMs: number): void {
    this.#latencyMs = blended(this.#latencyMs, Math.max(0, latencyMs));
  }

  get delayMs(): number {
    const delayMs = Math.min(waitInGaps * this.#keyGapMs, waitInLatencies * this.#latencyMs);
    return Math.round(Math.min(longestMs, Math.max(shortestMs, delayMs)));
  }
}

const shortestMs = 25;
const longestMs = 300;
const thinkingMs = 1_000;
const waitInGaps = 1.2;
const waitInLatencies = 0.3;
const newShare = 0.2;

function blended(old: number, latest: number): number {
  return old + newShare * (latest - old);
}
