import * as path from "node:path";
import { Location, Range, Uri, type WorkspaceFolder } from "vscode";
import type { Reference } from "../engine/protocol";

/** "src/store.ts:12-40", or "src/store.ts:12" for a single line. */
export function referenceLabel(reference: Reference): string {
  const { path: file, startLine, endLine } = reference;
  return startLine === endLine ? `${file}:${startLine}` : `${file}:${startLine}-${endLine}`;
}

/** Where a reference lies in the editor. Lines are from 1 in a reference and from 0 in a range. */
export function referenceLocation(folder: WorkspaceFolder, reference: Reference): Location {
  const first = Math.max(0, reference.startLine - 1);
  const last = Math.max(first, reference.endLine - 1);
  return new Location(Uri.joinPath(folder.uri, reference.path), rangeOfLines(first, last));
}

/** Lines from 0, the last one to its end. */
export function rangeOfLines(first: number, last: number): Range {
  return new Range(first, 0, last, beyondAnyLine);
}

/** The editor stops at a line's end. */
const beyondAnyLine = 100_000;

/** A path from the engine stays inside the repository: it names a file below the root and nothing else. */
export function isInside(reference: Reference): boolean {
  const normal = path.posix.normalize(reference.path);
  return normal !== "" && normal !== ".." && !normal.startsWith("../") && !path.posix.isAbsolute(normal);
}

/** Best first, each stretch of lines once, nothing that left the repository. */
export function shownReferences(references: readonly Reference[]): readonly Reference[] {
  const seen = new Set<string>();
  const shown: Reference[] = [];
  for (const reference of references.toSorted((a, b) => b.share - a.share)) {
    const label = referenceLabel(reference);
    if (seen.has(label) || !isInside(reference)) continue;
    seen.add(label);
    shown.push(reference);
  }
  return shown.slice(0, shownMax);
}

const shownMax = 12;
