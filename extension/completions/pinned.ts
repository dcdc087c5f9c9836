import type { Disposable } from "vscode";
import type { Engine } from "../client";
import type { Pins } from "../pins";
import { Scope } from "../util/disposables";

export interface PinnedOptions {
  readonly engine: Pick<Engine, "state" | "onDidChange" | "request">;
  readonly pins: Pins;
  /** Of the workspace's folders. */
  readonly roots: () => readonly string[];
  readonly onError: (error: unknown) => void;
}

/** Tells the engine what is pinned, so that completions keep it in sight as answers do: on connecting, and whenever it changes. */
export class Pinned implements Disposable {
  readonly #options: PinnedOptions;
  readonly #scope = new Scope();
  /** By root, as JSON: what this connection was told. An engine that was told nothing knows of no pins. */
  #told = new Map<string, string>();
  #connected = false;

  constructor(options: PinnedOptions) {
    this.#options = options;
    const { engine, pins } = options;
    this.#scope.add(engine.onDidChange(() => this.#follow()));
    this.#scope.add(pins.onDidChange(() => this.tell()));
    this.#follow();
  }

  /** To be called when the workspace has other folders. */
  tell(): void {
    if (!this.#connected) return;
    const { engine, pins, roots, onError } = this.#options;
    for (const root of roots()) {
      const places = pins.of(root);
      const text = JSON.stringify(places);
      if ((this.#told.get(root) ?? "[]") === text) continue;
      this.#told.set(root, text);
      engine.request("nosa/pins", { root, pins: places }).catch((error: unknown) => {
        this.#told.delete(root);
        onError(error);
      });
    }
  }

  dispose(): void {
    this.#scope.dispose();
  }

  #follow(): void {
    const connected = this.#options.engine.state.kind === "connected";
    if (connected === this.#connected) return;
    this.#connected = connected;
    this.#told = new Map();
    this.tell();
  }
}
