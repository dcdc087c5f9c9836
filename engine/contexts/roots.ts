/** Repository roots by their canonical path, so that two spellings of one folder share a context. */

import * as fs from "node:fs/promises";
import * as path from "node:path";
import { EngineError } from "../errors";

/** Remembers how clients spell the roots they name. */
export class Roots {
  readonly #spelling = new Map<string, string>();

  /** The canonical path. Rejects with `rootMissing` when there is no such folder. */
  async canonical(root: string): Promise<string> {
    if (root === "") return "";
    const missing = new EngineError(
      "rootMissing",
      `There is no folder ${root}: check the path, or open the folder again.`,
    );
    if (!path.isAbsolute(root)) throw missing;
    const real = await fs.realpath(root).catch(() => undefined);
    if (real === undefined || !(await fs.stat(real)).isDirectory()) throw missing;
    this.#spelling.set(real, root);
    return real;
  }

  /** As `canonical`, but a folder that is gone keeps its name: what is kept of it can still be looked at and forgotten. */
  async canonicalOrGone(root: string): Promise<string> {
    return this.canonical(root).catch(() => {
      for (const [real, spelled] of this.#spelling) if (spelled === root) return real;
      return path.resolve(root);
    });
  }

  /** As a client last spelled it. */
  spelled(canonical: string): string {
    return this.#spelling.get(canonical) ?? canonical;
  }

  /** The deepest of `roots` (canonical) that holds `file`; undefined when none does. */
  static deepest(roots: readonly string[], file: string): string | undefined {
    return roots
      .filter((root) => file === root || file.startsWith(root.endsWith(path.sep) ? root : root + path.sep))
      .sort((a, b) => b.length - a.length)[0];
  }
}
