import { EventEmitter, type Disposable, type Memento } from "vscode";
import type { Place } from "../engine/protocol";
import { Scope } from "./util/disposables";

/** Most files and folders of one repository that stay pinned: what everything attends to always is no selection any more. */
export const pinsMax = 32;

const storeKey = "nosa.pins";

/** Files and folders that every question of this workspace keeps in sight. Owned here, kept with the workspace. */
export class Pins implements Disposable {
  readonly #scope = new Scope();
  readonly #changed = this.#scope.add(new EventEmitter<void>());
  readonly onDidChange = this.#changed.event;
  readonly #store: Pick<Memento, "get" | "update">;

  constructor(store: Pick<Memento, "get" | "update">) {
    this.#store = store;
  }

  /** Paths relative to the root; a folder's ends with a slash. */
  of(root: string): readonly string[] {
    return this.#all()[root] ?? [];
  }

  places(root: string): readonly Place[] {
    return this.of(root).map((path) => ({ path, startLine: 0, endLine: 0 }));
  }

  has(root: string, path: string): boolean {
    return this.of(root).includes(path);
  }

  /** False when there are too many already. */
  async add(root: string, path: string): Promise<boolean> {
    const pinned = this.of(root);
    if (pinned.includes(path)) return true;
    if (pinned.length >= pinsMax) return false;
    await this.#set(root, [...pinned, path]);
    return true;
  }

  async remove(root: string, path: string): Promise<void> {
    await this.#set(
      root,
      this.of(root).filter((pinned) => pinned !== path),
    );
  }

  dispose(): void {
    this.#scope.dispose();
  }

  async #set(root: string, paths: readonly string[]): Promise<void> {
    await this.#store.update(storeKey, { ...this.#all(), [root]: paths });
    this.#changed.fire();
  }

  /** What was kept may come from another version: what does not fit counts for nothing. */
  #all(): Readonly<Record<string, readonly string[]>> {
    const kept: unknown = this.#store.get(storeKey);
    if (typeof kept !== "object" || kept === null) return {};
    const isPaths = (value: unknown): value is readonly string[] =>
      Array.isArray(value) && value.every((path) => typeof path === "string");
    return Object.fromEntries(
      Object.entries(kept).filter((entry): entry is [string, readonly string[]] => isPaths(entry[1])),
    );
  }
}
