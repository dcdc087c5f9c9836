/** Which files are read first, and left out last when not all fit. Pure. */

import type { ScannedFile } from "../repository/scanner";

const manifests = new Set([
  "package.json",
  "cargo.toml",
  "pyproject.toml",
  "setup.py",
  "go.mod",
  "cmakelists.txt",
  "makefile",
  "pom.xml",
  "build.gradle",
  "build.gradle.kts",
  "gemfile",
  "composer.json",
  "dockerfile",
]);

const sourceEnding =
  /\.(c|cc|cpp|cu|cuh|cxx|h|hh|hpp|cs|clj|dart|ex|exs|erl|fs|go|groovy|hs|java|jl|js|jsx|mjs|cjs|kt|kts|lua|m|mm|ml|mli|nim|php|pl|pm|py|pyi|r|rb|rs|scala|sh|sql|svelte|swift|ts|tsx|mts|cts|vue|zig|proto|graphql)$/i;
const documentEnding = /\.(md|mdx|rst|adoc|txt)$/i;
const testPath =
  /(^|\/)(tests?|__tests__|spec|specs|fixtures|testdata|examples?|samples?|bench|benchmarks?)\/|[._-](test|spec)\.[^/]+$|(^|\/)test_[^/]+$/i;

/** Files of the same rank: those near an open file first, then shallow before deep, small before large, and by path. */
const rank = { open: 0, introduction: 1, manifest: 2, source: 3, document: 4, other: 5, test: 6 } as const;

/** Most useful first. `open`: paths of files that the user has open. */
export function byUsefulness<File extends Pick<ScannedFile, "path" | "bytes">>(
  files: readonly File[],
  open: ReadonlySet<string>,
): readonly File[] {
  const openFolders = [...new Set([...open].map(folderOf))];
  return files
    .map((file) => ({
      file,
      rank: rankOf(file.path, open),
      away: Math.min(...openFolders.map((folder) => foldersBetween(folderOf(file.path), folder))),
      depth: depthOf(file.path),
    }))
    .sort(
      (a, b) =>
        a.rank - b.rank ||
        (a.away === b.away ? 0 : a.away - b.away) ||
        a.depth - b.depth ||
        a.file.bytes - b.file.bytes ||
        (a.file.path < b.file.path ? -1 : 1),
    )
    .map(({ file }) => file);
}

function rankOf(path: string, open: ReadonlySet<string>): number {
  if (open.has(path)) return rank.open;
  const name = path.slice(path.lastIndexOf("/") + 1).toLowerCase();
  if (name.startsWith("readme") && !path.includes("/")) return rank.introduction;
  if (testPath.test(path)) return rank.test;
  if (manifests.has(name)) return rank.manifest;
  if (sourceEnding.test(name)) return rank.source;
  if (documentEnding.test(name)) return rank.document;
  return rank.other;
}

function depthOf(path: string): number {
  return path.split("/").length;
}

function folderOf(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf("/")));
}

/** How many folders one goes up and down from one to the other. */
function foldersBetween(from: string, to: string): number {
  const [a, b] = [from, to].map((path) => path.split("/").filter(Boolean)) as [string[], string[]];
  const differing = a.findIndex((name, at) => name !== b[at]);
  return a.length + b.length - 2 * (differing === -1 ? a.length : differing);
}
