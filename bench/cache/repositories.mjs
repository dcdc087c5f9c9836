// The repositories that the parts of this benchmark read, as folders of ordinary files, and the engine's data folder that holds their contexts.
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { cacheFolder } from "../lib/cacheFolder.mjs";
import { corpus, writeRepository } from "../lib/corpus.mjs";

/** Characters of a token of code, near enough to cut repositories to size the same way for every model. */
const charactersPerToken = 3.6;

/** The last is so much more that it is a million of the default model's tokens, which are longer. */
const sizes = { "4k": 4_096, "32k": 32_768, "128k": 131_072, "200k": 204_800, "500k": 512_000, "1M": 1_150_000 };
let divisor = 1;

/** Makes every repository, and llama.cpp's prompt, so many times smaller: for trying a benchmark, not for figures. */
export function shrink(times) {
  divisor = times;
}

/** Tokens that stand for `tokens`. */
export function shrunk(tokens) {
  return Math.round(tokens / divisor);
}

/** Files of about so many tokens. */
export function filesOf(size, window = 0) {
  return corpus(shrunk(sizes[size]), (text) => text.length / charactersPerToken, window);
}

/** The repository's name, which its context begins with. */
export function nameOf(size) {
  return divisor === 1 ? `code-${size}` : `code-${size}-small`;
}

/** A folder with these files and nothing else, under a name of its own that stays the same. */
export function repository(size) {
  const root = path.join(cacheFolder("repositories"), nameOf(size));
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
