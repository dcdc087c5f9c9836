import type { Disposable, Position, Selection, TextDocument } from "vscode";

export interface CursorOptions {
  /** Whether typing in this document is answered. */
  readonly isAnswered: (document: TextDocument) => boolean;
  readonly nowMs: () => number;
  /** A completion may be asked for there soon. */
  readonly onNear: (document: TextDocument, position: Position) => void;
}

/** The part of an editor that is looked at. */
export interface Looked {
  readonly document: TextDocument;
  readonly selections: readonly Pick<Selection, "active" | "isEmpty">[];
}

/** A cursor that moves on sooner is only passing through. */
const restMs = 120;

/** Who typed nothing for so long is reading, not writing: then a cursor that moves costs nothing. */
const writingMs = 60_000;

/**
 * Where the next completion may be asked for, told before it is: with each key, for the request itself waits for a pause
 * in the typing, and where the cursor comes to rest while somebody writes.
 */
export class Cursor implements Disposable {
  readonly #options: CursorOptions;
  #document: TextDocument | undefined;
  #version = 0;
  #typedAtMs = Number.NEGATIVE_INFINITY;
  #resting: NodeJS.Timeout | undefined;

  constructor(options: CursorOptions) {
    this.#options = options;
  }

  /** To be called when the selections of the editor in front change, and when another editor comes to the front. */
  moved({ document, selections }: Looked): void {
    const { isAnswered, nowMs, onNear } = this.#options;
    clearTimeout(this.#resting);
    const isTyped = document === this.#document && document.version !== this.#version;
    this.#document = document;
    this.#version = document.version;
    if (isTyped) this.#typedAtMs = nowMs();
    const [only, ...others] = selections;
    if (only === undefined || others.length > 0 || !only.isEmpty || !isAnswered(document)) return;
    if (isTyped) return onNear(document, only.active);
    if (nowMs() - this.#typedAtMs > writingMs) return;
    const { version } = document;
    this.#resting = setTimeout(() => {
      if (document.version === version && isAnswered(document)) onNear(document, only.active);
    }, restMs);
  }

  dispose(): void {
    clearTimeout(this.#resting);
  }
}
