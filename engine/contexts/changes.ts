/**
 * What changed in a repository while it was open, so that a conversation which goes on behind an earlier state of it can
 * be told. Owns the log; the oldest entries go when it gets too long.
 */

export interface FileChange {
  readonly path: string;
  /** Tokens of the contents; undefined where there was, or is, no such file, or it is not known any more. */
  readonly before: Uint32Array | undefined;
  readonly after: Uint32Array | undefined;
  readonly kind: "added" | "changed" | "removed";
}

interface Entry extends FileChange {
  readonly at: number;
}

const entriesMax = 512;
const tokensMax = 2_000_000;

export class ChangeLog {
  #entries: Entry[] = [];
  #now = 0;
  /** Entries up to here may be gone. */
  #forgottenAt = 0;
  #tokens = 0;

  /** Grows with every change. */
  get now(): number {
    return this.#now;
  }

  note(changes: readonly FileChange[]): void {
    for (const change of changes) {
      const entry = { ...change, at: ++this.#now };
      this.#entries.push(entry);
      this.#tokens += sizeOf(entry);
    }
    while (this.#entries.length > entriesMax || this.#tokens > tokensMax) {
      const oldest = this.#entries.shift();
      if (oldest === undefined) break;
      this.#tokens -= sizeOf(oldest);
      this.#forgottenAt = oldest.at;
    }
  }

  /** One change a file, from what it was at `at` to what it is now; undefined when that is not known any more. */
  since(at: number): readonly FileChange[] | undefined {
    if (at < this.#forgottenAt) return undefined;
    const byPath = new Map<string, FileChange>();
    for (const entry of this.#entries) {
      if (entry.at <= at) continue;
      const first = byPath.get(entry.path);
      const known = first?.kind !== "added";
      const before = first === undefined ? entry.before : first.before;
      const existed = first === undefined ? entry.kind !== "added" : known;
      const exists = entry.kind !== "removed";
      if (!existed && !exists) byPath.delete(entry.path);
      else {
        const kind = !existed ? "added" : exists ? "changed" : "removed";
        byPath.set(entry.path, { path: entry.path, before, after: entry.after, kind });
      }
    }
    return [...byPath.values()].filter(({ before, after }) => !sameTokens(before, after));
  }
}

function sizeOf({ before, after }: FileChange): number {
  return (before?.length ?? 0) + (after?.length ?? 0);
}

function sameTokens(a: Uint32Array | undefined, b: Uint32Array | undefined): boolean {
  return a !== undefined && b !== undefined && a.length === b.length && a.every((token, at) => token === b[at]);
}
