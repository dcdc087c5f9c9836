/** Two descriptions of a repository → what became of its files. Pure. */

import type { FileChange } from "../contexts/changes";
import type { ContextRecord } from "../contexts/context";
import type { ReadResult } from "./reader";

/** None for the first description. */
export function fileChanges(
  older: ContextRecord | undefined,
  newer: ContextRecord,
  read: Pick<ReadResult, "files" | "before">,
): readonly FileChange[] {
  if (older === undefined) return [];
  const hashes = new Map(older.files.map(({ path, hash }) => [path, hash]));
  const now = new Map(read.files.map(({ record, tokenized }) => [record.path, tokenized.tokens]));
  const changed = newer.files
    .filter(({ path, hash }) => hashes.get(path) !== hash)
    .map(({ path }): FileChange => {
      const known = hashes.has(path);
      return { path, before: read.before.get(path), after: now.get(path), kind: known ? "changed" : "added" };
    });
  const removed = older.files
    .filter(({ path }) => !now.has(path))
    .map(({ path }): FileChange => ({ path, before: undefined, after: undefined, kind: "removed" }));
  return [...changed, ...removed];
}
