/** Stop strings across the borders of tokens: text is held back for as long as it could become one. */

export interface StopStep {
  /** Text that is safe to show. */
  readonly text: string;
  readonly stopped: boolean;
}

export class StopMatcher {
  readonly #stops: readonly string[];
  #held = "";

  constructor(stops: readonly string[]) {
    this.#stops = stops.filter((stop) => stop !== "");
  }

  /** Text up to the first stop string, which is not shown itself. */
  push(text: string): StopStep {
    const all = this.#held + text;
    const at = firstStop(all, this.#stops);
    if (at >= 0) {
      this.#held = "";
      return { text: all.slice(0, at), stopped: true };
    }
    const keep = possibleStart(all, this.#stops);
    this.#held = all.slice(all.length - keep);
    return { text: all.slice(0, all.length - keep), stopped: false };
  }

  /** What was held back for a stop string that did not come. */
  end(): string {
    const held = this.#held;
    this.#held = "";
    return held;
  }
}

function firstStop(text: string, stops: readonly string[]): number {
  let first = -1;
  for (const stop of stops) {
    const at = text.indexOf(stop);
    if (at >= 0 && (first < 0 || at < first)) first = at;
  }
  return first;
}

/** Length of the longest end of `text` with which a stop string begins. */
function possibleStart(text: string, stops: readonly string[]): number {
  let longest = 0;
  for (const stop of stops) {
    for (let length = Math.min(stop.length - 1, text.length); length > longest; length--) {
      if (stop.startsWith(text.slice(text.length - length))) longest = length;
    }
  }
  return longest;
}
