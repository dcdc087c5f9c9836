/**
 * The prompt of a completion that nobody asked for yet, being read: whoever asks for that completion next waits for the
 * rest only. It gives way to chats until somebody asks, and to whatever else is asked for at once.
 */

import type { Job, JobKind } from "../scheduler/scheduler";
import type { Place } from "./cache";

export class Reading implements Job {
  readonly place: Place;
  /** Resolves when it has ended, however it did. */
  readonly over: Promise<void>;
  /** Tokens that had to be read, once that is known. */
  tokens = 0;
  /** Whether all of it is read. */
  isRead = false;
  readonly #stop = new AbortController();
  #over: () => void = () => undefined;
  #isAwaited = false;

  constructor(place: Place) {
    this.place = place;
    this.over = new Promise((resolve) => (this.#over = resolve));
  }

  /** How urgent it is at the moment. */
  get kind(): JobKind {
    return this.#isAwaited ? "completion" : "ahead";
  }

  /** Aborted when it is of no use any more. What was read until then is kept. */
  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  /** Somebody asked for the completion; `given` is aborted when that is given up. */
  awaited(given: AbortSignal): void {
    this.#isAwaited = true;
    if (given.aborted) this.stop();
    else given.addEventListener("abort", () => this.stop(), { once: true });
  }

  end(): void {
    this.#over();
  }

  stop(): void {
    this.#stop.abort();
  }
}
