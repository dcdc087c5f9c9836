/** Lets the event loop turn in the middle of long work. */
export class Breather {
  readonly #everyMs: number;
  #lastMs = performance.now();

  /** `everyMs`: most time between two turns of the loop, as long as `due` is asked often. */
  constructor(everyMs = 5) {
    this.#everyMs = everyMs;
  }

  /** Whether it is time for `breathe`. Cheap enough to ask for every item. */
  get due(): boolean {
    return performance.now() - this.#lastMs >= this.#everyMs;
  }

  async breathe(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    this.#lastMs = performance.now();
  }
}
