import { commands, type Disposable } from "vscode";
import type { EngineStatus } from "../engine/protocol";
import type { Engine } from "./client";
import { Scope } from "./util/disposables";

/** Tells the editor what the steps of the walkthrough wait for: that there is a model, and that something open was read. */
export class ContextKeys implements Disposable {
  readonly #scope = new Scope();
  #told = "";

  constructor(engine: Engine, roots: () => readonly string[]) {
    this.#scope.add(engine.onDidChange(() => this.#tell(contextKeys(engine.status, roots()))));
  }

  dispose(): void {
    this.#scope.dispose();
  }

  #tell(keys: Readonly<Record<string, boolean>>): void {
    const told = JSON.stringify(keys);
    if (told === this.#told) return;
    this.#told = told;
    for (const [key, value] of Object.entries(keys)) void commands.executeCommand("setContext", key, value);
  }
}

/** Pure. */
export function contextKeys(status: EngineStatus | null, roots: readonly string[]): Readonly<Record<string, boolean>> {
  const isRead = status?.contexts.some(({ root, tokens }) => roots.includes(root) && tokens > 0) ?? false;
  return { "nosa.hasModel": (status?.model ?? null) !== null, "nosa.hasRead": isRead };
}
