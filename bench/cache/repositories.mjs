// The repositories that the parts of this benchmark read, as folders of ordinary files, and the engine's data folder that holds their contexts.
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { cacheFolder } from "../lib/cacheFolder.mjs";
import { corpus, writeRepository } from "../lib/corpus.mjs";

/** Characters of a token of code, near enough to cut repositories to size the same way for every model. */
const charactersPerToken = 3.6;

export const thousands = { "4k": 4_096, "32k": 32_768, "128k": 131_072, "1M": 1_000_000 };

/** Files of about so many tokens. */
export function filesOf(size, window = 0) {
  return corpus(thousands[size], (text) => text.length / charactersPerToken, window);
}

/** A folder with these files and nothing else, under a name of its own that stays the same. */
export function repository(size) {
  const root = path.join(cacheFolder("repositories"), `code-${size}`);
  rmSync(root, { recursive: true, force: true });
  writeRepository(root, filesOf(size));
  return root;
}

/** A folder that is used once. */
export function freshFolder(name) {
  return mkdtempSync(path.join(os.tmpdir(), `nosa-bench-${name}-`));
}

/** The engine's data folder for contexts that later parts and runs find again. */
export function keptHome() {
  return cacheFolder("home");
}
