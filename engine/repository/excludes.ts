/**
 * Globs of the user and of the editor: what they leave out of the context.
 */

import picomatch from "picomatch";

export interface Excludes {
  /** Whether the path, or a folder it lies in, is left out. */
  has(path: string): boolean;
}

export interface ExcludeOptions {
  /** A glob without a slash means that name in any folder; a folder stands for all that it holds. */
  readonly exclude: readonly string[];
  /** The editor's form: globs relative to the root, off where false. */
  readonly editorExcludes: Readonly<Record<string, boolean>>;
}

/** Folders whose answer is kept. */
const foldersMax = 100_000;

export function excludes({ exclude, editorExcludes }: ExcludeOptions): Excludes {
  const globs = [
    ...exclude.map((glob) => withoutSlashes(glob)).map((glob) => (glob.includes("/") ? glob : `**/${glob}`)),
    ...Object.entries(editorExcludes).flatMap(([glob, on]) => (on ? [withoutSlashes(glob)] : [])),
  ].filter((glob) => glob !== "" && glob !== "**/");
  const matchers = globs.flatMap(matcher);
  if (matchers.length === 0) return { has: () => false };

  const matches = (path: string): boolean => matchers.some((match) => match(path));
  const folders = new Map<string, boolean>();
  const hasFolder = (folder: string): boolean => {
    if (folder === "") return false;
    const known = folders.get(folder);
    if (known !== undefined) return known;
    const answer = matches(folder) || hasFolder(parentOf(folder));
    if (folders.size < foldersMax) folders.set(folder, answer);
    return answer;
  };
  return { has: (path) => matches(path) || hasFolder(parentOf(path)) };
}

function withoutSlashes(glob: string): string {
  return glob.trim().replace(/^\.?\/+|\/+$/g, "");
}

/** A glob that cannot be read leaves nothing out: a slip in a settings file must not stop the work. */
function matcher(glob: string): ((path: string) => boolean)[] {
  try {
    return [picomatch(glob, { dot: true })];
  } catch {
    return [];
  }
}

export function parentOf(path: string): string {
  const slash = path.lastIndexOf("/");
  return slash < 0 ? "" : path.slice(0, slash);
}
