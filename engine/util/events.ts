/** Tells its listeners that something happened, at most so often; the last time is never lost. */
export class ThrottledEvent {
  readonly #listeners = new Set<() => void>();
  readonly #everyMs: number;
  #timer: NodeJS.Timeout | undefined;
  #firedAt = -Infinity;

  constructor(perSecondMax: number) {
    this.#everyMs = 1000 / perSecondMax;
  }

  /** Returns how to stop listening. */
  on(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  fire(): void {
    if (this.#timer !== undefined) return;
    const wait = Math.max(0, this.#firedAt + this.#everyMs - performance.now());
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#firedAt = performance.now();
      for (const listener of this.#listeners) listener();
    }, wait);
    this.#timer.unref();
  }

  dispose(): void {
    clearTimeout(this.#timer);
    this.#listeners.clear();
  }
}
