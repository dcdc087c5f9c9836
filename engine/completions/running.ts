/**
 * The completion that is being written. The editor cancels it with the next key, but that key is often what is being
 * offered; so it goes on for a moment, and whoever asks next, having typed only its beginning, gets the rest of it.
 * One that was begun ahead goes on with nobody waiting, and becomes a request like any other when somebody does.
 */

import type { Job, JobKind } from "../scheduler/scheduler";
import type { Place } from "./cache";

/** How long an offer is written on while nobody waits for it: a little longer than the pause before the next request. */
const lingerMs = 350;

export class Running implements Job {
  /** Resolves when nothing more comes. */
  readonly over: Promise<void>;
  readonly place: Place;
  /** Begun with nobody waiting for it. */
  readonly ahead: boolean;
  readonly #stop = new AbortController();
  readonly #onChange = new Set<() => void>();
  #over: () => void = () => undefined;
  #text = "";
  #ended = false;
  #waiting = 0;
  #awaitedSinceMs = Number.POSITIVE_INFINITY;
  #lingering: NodeJS.Timeout | undefined;

  constructor(place: Place, { ahead = false } = {}) {
    this.place = place;
    this.ahead = ahead;
    this.over = new Promise((resolve) => (this.#over = resolve));
  }

  /** How urgent it is at the moment. */
  get kind(): JobKind {
    return this.ahead && this.#waiting === 0 ? "ahead" : "completion";
  }

  /** Whether somebody waits for it now. */
  get isAwaited(): boolean {
    return this.#waiting > 0;
  }

  /** When somebody first waited for it, by `performance.now`; infinite when nobody did. */
  get awaitedSinceMs(): number {
    return this.#awaitedSinceMs;
  }

  /** Aborted when the offer is no longer worth writing. */
  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  /** `text` is what was written so far, all of it. */
  wrote(text: string): void {
    this.#text = text;
    this.#changed();
  }

  /** Nothing more comes: it is written, was stopped, or failed. */
  end(): void {
    this.#ended = true;
    this.#over();
    this.#changed();
  }

  stop(): void {
    clearTimeout(this.#lingering);
    this.#stop.abort();
    this.#changed();
  }

  /** Whether what was typed since is, as far as one can tell yet, the beginning of the offer. */
  fits(place: Place): boolean {
    const { uri, basis, before, after } = this.place;
    if (this.#stop.signal.aborted || place.uri !== uri || place.basis !== basis || place.after !== after) return false;
    if (!place.before.startsWith(before)) return false;
    const typed = place.before.slice(before.length);
    return this.#text.startsWith(typed) || (!this.#ended && typed.startsWith(this.#text));
  }

  /**
   * Resolves to true when the offer has ended and still fits, and to false as soon as it does not. Keeps it being
   * written meanwhile. Resolves to false when `signal` is aborted.
   */
  async ended(place: Place, signal: AbortSignal): Promise<boolean> {
    this.#waiting += 1;
    this.#awaitedSinceMs = Math.min(this.#awaitedSinceMs, performance.now());
    clearTimeout(this.#lingering);
    try {
      return await new Promise<boolean>((resolve) => {
        const look = (): void => {
          const fits = !signal.aborted && this.fits(place);
          if (fits && !this.#ended) return;
          this.#onChange.delete(look);
          signal.removeEventListener("abort", look);
          resolve(fits);
        };
        this.#onChange.add(look);
        signal.addEventListener("abort", look, { once: true });
        look();
      });
    } finally {
      this.#waiting -= 1;
      if (this.#waiting === 0 && !this.#ended) this.#linger();
    }
  }

  /** Resolves as soon as it is known whether what was typed since is the beginning of the offer. Keeps nothing from ending. */
  follows(place: Place): Promise<boolean> {
    return new Promise((resolve) => {
      const look = (): void => {
        const fits = this.fits(place);
        const isKnown = place.before.length - this.place.before.length <= this.#text.length;
        if (fits && !isKnown && !this.#ended) return;
        this.#onChange.delete(look);
        resolve(fits);
      };
      this.#onChange.add(look);
      look();
    });
  }

  #linger(): void {
    clearTimeout(this.#lingering);
    this.#lingering = setTimeout(() => this.stop(), lingerMs);
    this.#lingering.unref();
  }

  #changed(): void {
    for (const look of [...this.#onChange]) look();
  }
}
