import { EventEmitter, type Disposable } from "vscode";
import type { ChatResult, Reference } from "../engine/protocol";
import { isInside } from "./references";
import { Scope } from "./util/disposables";

/** What the last answer over a repository attended to. */
export interface Attended {
  readonly root: string;
  readonly question: string;
  /** Best first. */
  readonly lines: readonly Reference[];
}

/** Keeps the last answer's attention, whichever chat gave the answer, for whoever draws it. */
export class Attention implements Disposable {
  readonly #scope = new Scope();
  readonly #changed = this.#scope.add(new EventEmitter<void>());
  readonly onDidChange = this.#changed.event;
  readonly #last = new Map<string, Attended>();
  #lastRoot = "";

  learn(root: string, question: string, result: ChatResult): void {
    if (root === "") return;
    const lines = (result.attention ?? result.references).filter(isInside);
    this.#last.set(root, { root, question, lines });
    this.#lastRoot = root;
    this.#changed.fire();
  }

  /** Of the last answer; "" before the first. */
  get lastRoot(): string {
    return this.#lastRoot;
  }

  of(root: string): Attended | undefined {
    return this.#last.get(root);
  }

  dispose(): void {
    this.#scope.dispose();
  }
}
