/** What an index run has to tell, a few times a second. */

import { limits } from "../config";
import type { IndexProgress } from "../protocol";

export type ProgressState = Omit<IndexProgress, "root">;

/** Owns the numbers of one run; tells them when the stage changes and now and then between. */
export class ProgressReport {
  readonly #tell: (state: ProgressState) => void;
  #state: ProgressState = {
    stage: "scanning",
    filesDone: 0,
    filesTotal: 0,
    tokensDone: 0,
    tokensTotal: 0,
    tokensPerSecond: 0,
    secondsLeft: -1,
    path: "",
  };
  #toldAt = 0;

  constructor(tell: (state: ProgressState) => void) {
    this.#tell = tell;
  }

  get state(): ProgressState {
    return this.#state;
  }

  set(change: Partial<ProgressState>): void {
    const stageChanged = change.stage !== undefined && change.stage !== this.#state.stage;
    this.#state = { ...this.#state, ...change };
    const now = performance.now();
    if (!stageChanged && now - this.#toldAt < 1000 / limits.progressPerSecondMax) return;
    this.#toldAt = now;
    this.#tell(this.#state);
  }

  /** Speed, and from it the time left for the tokens that are not done. */
  speed(tokensPerSecond: number, tokensDone: number): void {
    const left = Math.max(0, this.#state.tokensTotal - tokensDone);
    this.set({
      tokensDone,
      tokensPerSecond: Math.round(tokensPerSecond * 10) / 10,
      secondsLeft: tokensPerSecond > 0 ? Math.ceil(left / tokensPerSecond) : -1,
    });
  }
}
