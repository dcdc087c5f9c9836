import type { ContextFile } from "../engine/protocol";

export type ContextNode =
  | {
      readonly kind: "folder";
      readonly name: string;
      /** Of all files below. */
      readonly tokens: number;
      readonly children: readonly ContextNode[];
    }
  | { readonly kind: "file"; readonly name: string; readonly file: ContextFile };

/** Files by path → a tree: folders first, then files, each by name. Pure. */
export function contextTree(files: readonly ContextFile[]): readonly ContextNode[] {
  return level(files.map((file) => ({ parts: file.path.split("/"), file })));
}

interface Entry {
  /** What is left of the path, from this level on; never empty. */
  readonly parts: readonly string[];
  readonly file: ContextFile;
}

function level(entries: readonly Entry[]): readonly ContextNode[] {
  const below = new Map<string, Entry[]>();
  const here: ContextNode[] = [];
  for (const { parts, file } of entries) {
    const [name = "", ...rest] = parts;
    if (rest.length === 0) {
      here.push({ kind: "file", name, file });
      continue;
    }
    const inside = below.get(name) ?? [];
    inside.push({ parts: rest, file });
    below.set(name, inside);
  }
  const foldersHere = [...below].map(([name, inside]): ContextNode => {
    const tokens = inside.reduce((sum, { file }) => sum + file.tokens, 0);
    return { kind: "folder", name, tokens, children: level(inside) };
  });
  return [...foldersHere.toSorted(byName), ...here.toSorted(byName)];
}

// Made once: a comparison of its own for each pair of names is ten times slower.
const names = new Intl.Collator();

function byName(a: ContextNode, b: ContextNode): number {
  return names.compare(a.name, b.name);
}
