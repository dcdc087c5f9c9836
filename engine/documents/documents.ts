/** Open editor buffers, as LSP syncs them, for every client apart. */

import * as path from "node:path";
import { fileURLToPath } from "node:url";
import { TextDocument, type TextDocumentContentChangeEvent } from "vscode-languageserver-textdocument";
import { limits } from "../config";

export type { TextDocument } from "vscode-languageserver-textdocument";

/** Owns one client's open documents. The oldest are forgotten beyond a maximum; the client's next change of one is ignored. */
export class Documents {
  readonly #byUri = new Map<string, TextDocument>();

  get size(): number {
    return this.#byUri.size;
  }

  open(uri: string, languageId: string, version: number, text: string): void {
    this.#byUri.delete(uri);
    if (text.length > limits.documentCharactersMax) return;
    this.#byUri.set(uri, TextDocument.create(uri, languageId, version, text));
    if (this.#byUri.size <= limits.openDocumentsMax) return;
    const oldest = this.#byUri.keys().next();
    if (!oldest.done) this.#byUri.delete(oldest.value);
  }

  change(uri: string, version: number, changes: readonly TextDocumentContentChangeEvent[]): void {
    const document = this.#byUri.get(uri);
    if (document === undefined) return;
    const updated = TextDocument.update(document, [...changes], version);
    if (updated.getText().length > limits.documentCharactersMax) this.#byUri.delete(uri);
  }

  close(uri: string): void {
    this.#byUri.delete(uri);
  }

  get(uri: string): TextDocument | undefined {
    return this.#byUri.get(uri);
  }

  /** Absolute paths of the open documents that are files. */
  paths(): readonly string[] {
    return [...this.#byUri.keys()].map(filePath).filter((file) => file !== undefined);
  }
}

/** Absolute path of a `file:` URI; undefined for every other scheme. */
export function filePath(uri: string): string | undefined {
  if (!uri.startsWith("file:")) return undefined;
  try {
    return fileURLToPath(uri);
  } catch {
    return undefined;
  }
}

/** `file` relative to `root` with forward slashes; undefined when it lies outside. */
export function pathWithin(root: string, file: string): string | undefined {
  const relative = path.relative(root, file);
  if (relative === "" || relative === ".." || relative.startsWith(`..${path.sep}`) || path.isAbsolute(relative))
    return undefined;
  return relative.split(path.sep).join("/");
}
