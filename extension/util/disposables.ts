import type { Disposable } from "vscode";

/** Owns disposables and lets go of them in reverse order, once. */
export class Scope implements Disposable {
  readonly #owned: Disposable[] = [];
  #disposed = false;

  /** Takes ownership; what comes after the end is disposed at once. */
  add<T extends Disposable>(disposable: T): T {
    if (this.#disposed) disposable.dispose();
    else this.#owned.push(disposable);
    return disposable;
  }

  dispose(): void {
    this.#disposed = true;
    for (let owned = this.#owned.pop(); owned !== undefined; owned = this.#owned.pop()) {
      owned.dispose();
    }
  }
}
