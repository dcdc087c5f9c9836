// Content stamps: work whose inputs have not changed since it last succeeded is not done again.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { checkoutCache, root } from "./paths.mjs";

const skipped = new Set(["node_modules", ".git", "__pycache__", ".cache", "dist", "build", "test-results"]);

/** Every file under the given files and folders of the checkout, sorted, as paths relative to the root. */
export function filesUnder(places, accept = () => true) {
  const found = [];
  const visit = (relative) => {
    const absolute = path.join(root, relative);
    if (!existsSync(absolute)) return;
    if (!statSync(absolute).isDirectory()) {
      if (accept(relative)) found.push(relative);
      return;
    }
    for (const name of readdirSync(absolute)) {
      if (!skipped.has(name)) visit(path.join(relative, name));
    }
  };
  places.forEach(visit);
  return found.sort();
}

/** Hash over names and contents of the files, and over `extra`. */
export function hashOf(places, extra = "", accept) {
  const hash = createHash("sha256").update(extra);
  for (const file of filesUnder(places, accept)) {
    hash.update(`\0${file}\0`).update(readFileSync(path.join(root, file)));
  }
  return hash.digest("hex");
}

const stampFile = (name) => path.join(checkoutCache, "stamps", name);

/** Whether `name` last succeeded with the same hash. */
export function isDone(name, hash) {
  return existsSync(stampFile(name)) && readFileSync(stampFile(name), "utf8") === hash;
}

/** Records that `name` succeeded with this hash. */
export function markDone(name, hash) {
  mkdirSync(path.dirname(stampFile(name)), { recursive: true });
  writeFileSync(stampFile(name), hash);
}

/** Forgets a success, before work that may leave things half done. */
export function markUndone(name) {
  rmSync(stampFile(name), { force: true });
}

/** Hash of one file's contents, wherever it is. */
export function hashOfFile(file) {
  return createHash("sha256").update(readFileSync(file)).digest("hex");
}
