/**
 * Which files share a segment: small siblings of one folder. Pure.
 *
 * Where a group ends is written in the files' paths, not in their sizes or number, so that an edit changes its own group at most.
 */

export interface Grouped {
  readonly path: string;
}

/** Longer files have a segment of their own, and groups grow to no more: an edit has to recompute what follows it in its group. */
const smallTokens = 1_024;
const groupTokens = 2_048;
/** One path in so many ends a group. */
const groupFilesMean = 8;

/** Groups in order of folder and path; a group of one may be longer than a segment, a group of several never is. */
export function* groupSiblings<File extends Grouped>(
  files: readonly File[],
  tokensOf: (file: File) => number,
  segmentTokensMax: number,
): Generator<readonly File[], void, undefined> {
  const smallTokensMax = Math.min(smallTokens, segmentTokensMax / 4);
  const groupTokensMax = Math.min(groupTokens, segmentTokensMax / 2);
  for (const siblings of folders(files).values()) {
    let group: File[] = [];
    for (const file of siblings) {
      if (tokensOf(file) > smallTokensMax) yield [file];
      else group.push(file);
      // Also where the file itself is not part of the group: a small file that grows must not join its neighbours.
      if (pathHash(file.path) % groupFilesMean === 0) {
        yield* fitting(group, tokensOf, groupTokensMax);
        group = [];
      }
    }
    yield* fitting(group, tokensOf, groupTokensMax);
  }
}

/** Files by folder, both sorted. */
function folders<File extends Grouped>(files: readonly File[]): ReadonlyMap<string, readonly File[]> {
  const byFolder = new Map<string, File[]>();
  for (const file of files) {
    const folder = folderOf(file.path);
    const siblings = byFolder.get(folder);
    if (siblings === undefined) byFolder.set(folder, [file]);
    else siblings.push(file);
  }
  for (const siblings of byFolder.values()) siblings.sort((a, b) => compare(a.path, b.path));
  return new Map([...byFolder].sort(([a], [b]) => compare(a, b)));
}

/** Halves a group that is too long at the path that hashes lowest, again and again. */
function* fitting<File extends Grouped>(
  group: readonly File[],
  tokensOf: (file: File) => number,
  tokensMax: number,
): Generator<readonly File[], void, undefined> {
  if (group.length === 0) return;
  const total = group.reduce((sum, file) => sum + tokensOf(file), 0);
  if (group.length === 1 || total <= tokensMax) {
    yield group;
    return;
  }
  let cut = 1;
  group.forEach((file, at) => {
    if (at > 0 && pathHash(file.path) < pathHash(group[cut]?.path ?? "")) cut = at;
  });
  yield* fitting(group.slice(0, cut), tokensOf, tokensMax);
  yield* fitting(group.slice(cut), tokensOf, tokensMax);
}

function folderOf(path: string): string {
  const slash = path.lastIndexOf("/");
  return slash < 0 ? "" : path.slice(0, slash);
}

/** FNV-1a over UTF-16 code units, finished so that its low bits are as good as its high ones. */
function pathHash(path: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < path.length; at++) hash = Math.imul(hash ^ path.charCodeAt(at), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x45d9f3b);
  return (hash ^ (hash >>> 16)) >>> 0;
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
