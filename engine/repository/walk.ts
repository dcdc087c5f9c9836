/**
 * The files of a folder that no version control knows: a walk with nested ignore files.
 */

import { readdir, readFile } from "node:fs/promises";
import * as path from "node:path";
import { throwIfAborted } from "../errors";
import { Breather } from "../util/breather";
import type { Excludes } from "./excludes";
import { IgnoreFiles } from "./ignoreFiles";
import { hiddenFolders, isForeignFolder } from "./rules";
import type { LeftOutFile } from "./scanner";

export interface Walked {
  readonly files: readonly string[];
  readonly leftOut: readonly LeftOutFile[];
}

/** Deeper folders are left out. */
const depthMax = 64;
/** After so many entries the rest is left out. */
const entriesMax = 1_000_000;
const ignoreFileNames = [".gitignore", ".ignore", ".nosaignore"];
const ignoreFileBytesMax = 1_000_000;

export async function walk(root: string, excludes: Excludes, signal: AbortSignal): Promise<Walked> {
  const files: string[] = [];
  const leftOut: LeftOutFile[] = [];
  const ignores = new IgnoreFiles();
  const breather = new Breather();
  const folders: { readonly prefix: string; readonly depth: number }[] = [{ prefix: "", depth: 0 }];
  let entries = 0;
  for (let next = folders.pop(); next !== undefined; next = folders.pop()) {
    throwIfAborted(signal);
    const { prefix, depth } = next;
    if (depth > depthMax || entries > entriesMax) {
      leftOut.push({ path: prefix, reason: "budget" });
      continue;
    }
    const found = await entriesOf(path.join(root, prefix));
    if (found === undefined) {
      leftOut.push({ path: prefix, reason: "unreadable" });
      continue;
    }
    entries += found.length;
    const names = new Set(found.map(({ name }) => name));
    for (const name of ignoreFileNames) {
      if (names.has(name)) await addIgnoreFile(ignores, root, prefix, name);
    }
    for (const entry of found) {
      if (breather.due) await breather.breathe();
      const at = prefix + entry.name;
      if (!entry.isDirectory()) {
        if (ignores.ignores(at, false)) leftOut.push({ path: at, reason: "ignored" });
        else files.push(at);
      } else if (hiddenFolders.has(entry.name)) continue;
      else if (excludes.has(at)) leftOut.push({ path: `${at}/`, reason: "excluded" });
      else if (ignores.ignores(at, true)) leftOut.push({ path: `${at}/`, reason: "ignored" });
      else if (isForeignFolder(entry.name)) leftOut.push({ path: `${at}/`, reason: "generated" });
      else folders.push({ prefix: `${at}/`, depth: depth + 1 });
    }
  }
  return { files, leftOut };
}

/** Undefined when the folder cannot be read. */
async function entriesOf(folder: string) {
  try {
    return await readdir(folder, { withFileTypes: true });
  } catch {
    return undefined;
  }
}

/** Adds the rules of `prefix + name`; a file that cannot be read or is absurdly long has none. */
export async function addIgnoreFile(ignores: IgnoreFiles, root: string, prefix: string, name: string): Promise<void> {
  try {
    const text = await readFile(path.join(root, prefix, name), "utf8");
    if (text.length <= ignoreFileBytesMax) ignores.add(prefix.replace(/\/$/, ""), text);
  } catch {
    // A link to nowhere, a folder of that name, or no right to read it.
  }
}
