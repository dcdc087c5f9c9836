/** Ghost text is quiet until then. Lost with the window, on purpose: nobody should have to find out why it stays away. */
export class Snooze {
  readonly #nowMs: () => number;
  #untilMs = Number.NEGATIVE_INFINITY;

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  start(minutes: number): void {
    this.#untilMs = this.#nowMs() + minutes * msPerMinute;
  }

  end(): void {
    this.#untilMs = Number.NEGATIVE_INFINITY;
  }

  get active(): boolean {
    return this.minutesLeft > 0;
  }

  /** Whole minutes, begun ones counted; 0 when ghost text is not quiet. */
  get minutesLeft(): number {
    return Math.max(0, Math.ceil((this.#untilMs - this.#nowMs()) / msPerMinute));
  }
}

const msPerMinute = 60_000;
