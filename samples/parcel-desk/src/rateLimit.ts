/** Slows down guessing of pickup codes: so many wrong ones from one address within a window, then a pause. */

export class AttemptLimit {
  readonly #attemptsMax: number;
  readonly #windowMs: number;
  readonly #failures = new Map<string, number[]>();

  constructor(attemptsMax: number, windowMs: number) {
    this.#attemptsMax = attemptsMax;
    this.#windowMs = windowMs;
  }

  /** Milliseconds until `address` may try again; 0 when it may now. */
  waitMs(address: string, nowMs: number): number {
    const recent = this.#recent(address, nowMs);
    const oldest = recent[0];
    if (oldest === undefined || recent.length < this.#attemptsMax) return 0;
    return oldest + this.#windowMs - nowMs;
  }

  failed(address: string, nowMs: number): void {
    this.#failures.set(address, [...this.#recent(address, nowMs), nowMs]);
  }

  succeeded(address: string): void {
    this.#failures.delete(address);
  }

  #recent(address: string, nowMs: number): number[] {
    return (this.#failures.get(address) ?? []).filter((atMs) => atMs > nowMs - this.#windowMs);
  }
}
