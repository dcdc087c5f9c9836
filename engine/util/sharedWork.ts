import { setMaxListeners } from "node:events";

/** Work that several may wait for at once; it is stopped when all of them have left. */
export class SharedWork<Result, Progress> {
  /** Resolves, never rejects, when the work is over. */
  readonly settled: Promise<void>;
  readonly #stop = new AbortController();
  readonly #result: Promise<Result>;
  readonly #listeners = new Set<(progress: Progress) => void>();

  /** `work` begins after the one who made this had time to join. */
  constructor(work: (signal: AbortSignal) => Promise<Result>) {
    // Whatever the work consists of listens.
    setMaxListeners(0, this.#stop.signal);
    this.#result = Promise.resolve().then(() => work(this.#stop.signal));
    this.settled = this.#result.then(
      () => undefined,
      () => undefined,
    );
  }

  get stopped(): boolean {
    return this.#stop.signal.aborted;
  }

  tell(progress: Progress): void {
    for (const listener of this.#listeners) listener(progress);
  }

  stop(): void {
    this.#stop.abort();
  }

  /** Waits for the result. Aborting `signal` leaves; the last to leave stops the work, and still hears how it ended. */
  async join(signal: AbortSignal, onProgress: (progress: Progress) => void): Promise<Result> {
    const listener = (progress: Progress): void => onProgress(progress);
    this.#listeners.add(listener);
    const leave = (): void => {
      this.#listeners.delete(listener);
      if (this.#listeners.size === 0) this.#stop.abort();
    };
    if (signal.aborted) leave();
    else signal.addEventListener("abort", leave, { once: true });
    try {
      return await this.#result;
    } finally {
      signal.removeEventListener("abort", leave);
      this.#listeners.delete(listener);
    }
  }
}
