// Repositories of real code to measure on, cut to a number of tokens: ordinary files of packages that the lock file pins.
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import path from "node:path";
import { createHash } from "node:crypto";

const modules = fileURLToPath(new URL("../../node_modules/", import.meta.url));

/** In this order; a small repository is made of the first alone. */
export const corpusFolders = ["undici/lib", "eslint/lib", "ajv/lib", "zod/src/v4/core"];

const bytesMin = 500;
const bytesMax = 96_000;
/** Longer lines are generated code. */
const lineMax = 400;

/**
 * Whole files of about `tokens` tokens in all by `count` (text -> tokens): `[{path, text}]`, sorted by path. The order in which files are taken
 * is that of hashes of their paths, so that a small repository has files of every folder, and a larger one of the same packages holds all of its files.
 * `window` n gives the n-th such repository; it shares no file with the first, and few with the others.
 */
export function corpus(tokens, count, window = 0) {
  const used = new Set(window === 0 ? [] : corpus(tokens * window, count).map((file) => file.path));
  const taken = [];
  let left = tokens;
  for (const source of corpusFolders) {
    for (const file of shuffled(ordinaryFiles(source))) {
      if (used.has(file.path)) continue;
      const size = count(file.text);
      if (size > left || size > tokens / 4) continue;
      taken.push(file);
      left -= size;
    }
    if (left < tokens / 100) break;
  }
  return taken.sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** Name, version and licence of the packages. */
export function corpusSources() {
  return corpusFolders.map((source) => {
    const { name, version, license } = JSON.parse(
      readFileSync(path.join(modules, source.split("/")[0], "package.json"), "utf8"),
    );
    return { name, version, license };
  });
}

/** The files as text, each below its path. */
export function joinedText(files) {
  return files.map((file) => `// ${file.path}\n${file.text}`).join("\n");
}

/** Writes the files below `root`, to be read as a repository. */
export function writeRepository(root, files) {
  for (const file of files) {
    const target = path.join(root, file.path);
    mkdirSync(path.dirname(target), { recursive: true });
    writeFileSync(target, file.text);
  }
}

function ordinaryFiles(source) {
  return readdirSync(path.join(modules, source), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /\.(?:js|mjs|ts)$/.test(entry.name) && !entry.name.endsWith(".d.ts"))
    .map((entry) => path.join(entry.parentPath, entry.name))
    .map((file) => ({ path: path.relative(modules, file).replaceAll(path.sep, "/"), text: readFileSync(file, "utf8") }))
    .filter(({ text }) => text.length >= bytesMin && text.length <= bytesMax)
    .filter(({ text }) => text.split("\n").every((line) => line.length <= lineMax));
}

function shuffled(files) {
  const key = (file) => createHash("sha256").update(file.path).digest("hex");
  return files
    .map((file) => [key(file), file])
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([, file]) => file);
}
