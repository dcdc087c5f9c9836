/**
 * Which files of a folder go into its context, and why the others do not.
 */

import { createHash } from "node:crypto";
import { constants, type Stats } from "node:fs";
import { lstat, open, realpath } from "node:fs/promises";
import * as path from "node:path";
import { Cancelled, codeOf, EngineError, throwIfAborted } from "../errors";
import type { LeftOutReason } from "../protocol";
import { Breather } from "../util/breather";
import { decodeText, reasonByContent } from "./content";
import { excludes, parentOf } from "./excludes";
import { gitListing } from "./gitListing";
import { IgnoreFiles } from "./ignoreFiles";
import { reasonByPath } from "./rules";
import { addIgnoreFile, walk } from "./walk";

export interface ScanOptions {
  /** Globs of the user, relative to the root. */
  readonly exclude: readonly string[];
  /** The editor's `files.exclude` and `search.exclude`: glob → on. */
  readonly editorExcludes: Readonly<Record<string, boolean>>;
  /** Larger files are left out. */
  readonly fileBytesMax: number;
  /** Called now and then with the number of files looked at. */
  readonly onProgress?: (filesSeen: number) => void;
}

export interface ScannedFile {
  /** Relative to the root, with forward slashes. */
  readonly path: string;
  readonly bytes: number;
  readonly mtimeMs: number;
  /** Id of the git blob with the file's content, "" when git does not know it or the file was changed since. */
  readonly blob: string;
}

export interface LeftOutFile {
  /** A folder that is left out as a whole ends in a slash. */
  readonly path: string;
  readonly reason: LeftOutReason;
}

export interface ScanResult {
  /** Sorted by path, compared as UTF-16 code units. */
  readonly files: readonly ScannedFile[];
  readonly leftOut: readonly LeftOutFile[];
  readonly vcs: "git" | "none";
  /** The folder's own name, for the header. */
  readonly name: string;
}

/** Most files of one context; the rest, in order of path, is left out as `budget`. */
export const filesMax = 50_000;
/** Most entries of `leftOut`. */
export const leftOutMax = 20_000;
/** No setting lets a larger file in: decoding it would hold up the event loop. */
export const fileBytesCeiling = 8 * 1024 * 1024;

/** Files whose size is asked for at once. */
const statsAtOnce = 32;

/**
 * Lists what of `root` belongs in a context, by names and sizes; readFileText judges contents. Rejects with EngineError `rootMissing` when
 * the folder cannot be listed and with Cancelled when `signal` is aborted. A folder with nothing to read gives an empty list.
 */
export async function scan(root: string, options: ScanOptions, signal: AbortSignal): Promise<ScanResult> {
  throwIfAborted(signal);
  const folder = await folderOf(root);
  const listing = await list(folder, options, signal);
  const leftOut: LeftOutFile[] = [...listing.leftOut];
  const wanted: string[] = [];
  const breather = new Breather();
  for (const file of listing.files) {
    if (breather.due) await breather.breathe();
    const reason = listing.reasonFor(file) ?? reasonByPath(file);
    if (reason !== undefined) leftOut.push({ path: file, reason });
    else wanted.push(file);
  }
  wanted.sort(compare);
  for (const file of wanted.splice(filesMax)) leftOut.push({ path: file, reason: "budget" });

  const files: ScannedFile[] = [];
  for (let at = 0; at < wanted.length; at += statsAtOnce) {
    if (signal.aborted) throw new Cancelled();
    const some = wanted.slice(at, at + statsAtOnce);
    const facts = await Promise.all(some.map((file) => factsOf(path.join(folder, file), options.fileBytesMax)));
    some.forEach((file, index) => {
      const fact = facts[index] ?? "gone";
      if (typeof fact !== "string") {
        files.push({ path: file, bytes: fact.size, mtimeMs: fact.mtimeMs, blob: listing.blobs.get(file) ?? "" });
      } else if (fact !== "gone") leftOut.push({ path: file, reason: fact });
    });
    options.onProgress?.(at + some.length);
    if (breather.due) await breather.breathe();
  }
  leftOut.sort((a, b) => compare(a.path, b.path));
  return { files, leftOut: leftOut.slice(0, leftOutMax), vcs: listing.vcs, name: path.basename(folder) };
}

export type FileText =
  /** Decoded text without byte order mark; invalid UTF-8 was replaced by U+FFFD. `hash`: SHA-256 of the bytes, hex. */
  | { readonly kind: "text"; readonly text: string; readonly hash: string }
  | { readonly kind: "leftOut"; readonly reason: LeftOutReason };

/** Reads one scanned file and applies the rules that need its content. One that is gone is `unreadable`. */
export async function readFileText(root: string, file: string, fileBytesMax: number): Promise<FileText> {
  let bytes: Buffer;
  try {
    // Not through a link, and without waiting for whoever writes into a pipe, should the file have become one since the scan.
    const handle = await open(
      path.join(root, file),
      constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0),
    );
    try {
      const stats = await handle.stat();
      const reason = reasonByStats(stats, fileBytesMax);
      if (reason !== undefined) return { kind: "leftOut", reason };
      bytes = await handle.readFile();
    } finally {
      await handle.close();
    }
  } catch (error) {
    return { kind: "leftOut", reason: codeOf(error) === "ELOOP" ? "link" : "unreadable" };
  }
  if (bytes.length > sizeMax(fileBytesMax)) return { kind: "leftOut", reason: "tooLarge" };
  const text = decodeText(bytes);
  const reason = text === undefined ? "binary" : judgeText(file, text);
  if (text === undefined || reason !== undefined) return { kind: "leftOut", reason: reason ?? "binary" };
  return { kind: "text", text, hash: createHash("sha256").update(bytes).digest("hex") };
}

/** The same rules for text that comes from an open editor. */
export function judgeText(file: string, text: string): LeftOutReason | undefined {
  return reasonByPath(file) ?? reasonByContent(text);
}

async function folderOf(root: string): Promise<string> {
  try {
    const folder = await realpath(root);
    if ((await lstat(folder)).isDirectory()) return folder;
  } catch {
    // Said below, with what to do.
  }
  throw new EngineError(
    "rootMissing",
    `The folder ${root} cannot be opened: check that it exists and that you may read it.`,
  );
}

interface Listing {
  readonly files: readonly string[];
  readonly blobs: ReadonlyMap<string, string>;
  readonly leftOut: readonly LeftOutFile[];
  readonly vcs: "git" | "none";
  reasonFor(file: string): LeftOutReason | undefined;
}

async function list(folder: string, options: ScanOptions, signal: AbortSignal): Promise<Listing> {
  const excluded = excludes(options);
  const git = await gitListing(folder, signal);
  if (git === undefined) {
    const { files, leftOut } = await walk(folder, excluded, signal);
    return {
      files,
      blobs: new Map(),
      leftOut,
      vcs: "none",
      reasonFor: (file) => (excluded.has(file) ? "excluded" : undefined),
    };
  }
  const ignores = await ownIgnoreFiles(folder, git.files.keys());
  return {
    files: [...git.files.keys()],
    blobs: git.files,
    leftOut: [
      ...git.ignored.map((ignored) => ({ path: ignored, reason: "ignored" as const })),
      ...git.unreadable.map((unreadable) => ({ path: unreadable, reason: "unreadable" as const })),
    ],
    vcs: "git",
    reasonFor: (file) => {
      if (excluded.has(file)) return "excluded";
      return ignores.ignores(file, false) ? "ignored" : undefined;
    },
  };
}

const ownIgnoreFile = ".nosaignore";

/** Rules of our own ignore files: git, which applied its own, knows nothing of them. */
async function ownIgnoreFiles(folder: string, files: Iterable<string>): Promise<IgnoreFiles> {
  const ignores = new IgnoreFiles();
  const prefixes = new Set([""]);
  for (const file of files) {
    if (file.endsWith(`/${ownIgnoreFile}`)) prefixes.add(`${parentOf(file)}/`);
  }
  for (const prefix of prefixes) await addIgnoreFile(ignores, folder, prefix, ownIgnoreFile);
  return ignores;
}

async function factsOf(file: string, fileBytesMax: number): Promise<Stats | LeftOutReason | "gone"> {
  try {
    const stats = await lstat(file);
    return reasonByStats(stats, fileBytesMax) ?? stats;
  } catch (error) {
    return codeOf(error) === "ENOENT" ? "gone" : "unreadable";
  }
}

function reasonByStats(stats: Stats, fileBytesMax: number): LeftOutReason | undefined {
  if (stats.isSymbolicLink()) return "link";
  if (!stats.isFile()) return "unreadable";
  return stats.size > sizeMax(fileBytesMax) ? "tooLarge" : undefined;
}

function sizeMax(fileBytesMax: number): number {
  return Math.min(fileBytesMax, fileBytesCeiling);
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
