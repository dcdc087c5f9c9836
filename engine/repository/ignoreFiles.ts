/**
 * Ignore files in any folder of a tree, with git's precedence: the file nearest to a path speaks last, and what lies in an ignored folder stays ignored.
 */

import ignore, { type Ignore } from "ignore";
import { parentOf } from "./excludes";

export class IgnoreFiles {
  readonly #rules = new Map<string, Ignore[]>();
  #folders = new Map<string, boolean>();

  /** Adds the rules of one file. `folder` is relative to the root, "" for the root itself. Within a folder later files speak last. */
  add(folder: string, text: string): void {
    const rules = this.#rules.get(folder) ?? [];
    rules.push(ignore({ allowRelativePaths: true }).add(text));
    this.#rules.set(folder, rules);
    this.#folders = new Map();
  }

  /** `path` of a folder ends in no slash; `isFolder` says what it is. */
  ignores(path: string, isFolder: boolean): boolean {
    if (this.#rules.size === 0) return false;
    if (isFolder) return this.#ignoresFolder(path);
    return this.#ignoresFolder(parentOf(path)) || this.#verdict(path, path);
  }

  #ignoresFolder(folder: string): boolean {
    if (folder === "") return false;
    const known = this.#folders.get(folder);
    if (known !== undefined) return known;
    const verdict = this.#ignoresFolder(parentOf(folder)) || this.#verdict(folder, `${folder}/`);
    this.#folders.set(folder, verdict);
    return verdict;
  }

  /** What the rules say of this path alone, its folders left aside. */
  #verdict(path: string, marked: string): boolean {
    let ignored = false;
    for (const folder of foldersAbove(path)) {
      for (const rules of this.#rules.get(folder) ?? []) {
        const said = rules.test(folder === "" ? marked : marked.slice(folder.length + 1));
        if (said.ignored) ignored = true;
        else if (said.unignored) ignored = false;
      }
    }
    return ignored;
  }
}

/** "" first, then each folder on the way down to the one that holds `path`. */
function foldersAbove(path: string): readonly string[] {
  const folders = [""];
  for (let slash = path.indexOf("/"); slash >= 0; slash = path.indexOf("/", slash + 1))
    folders.push(path.slice(0, slash));
  return folders;
}
