/**
 * What git says of a folder: exact ignore rules, and blob ids for nothing.
 */

import { spawn } from "node:child_process";
import { lstat } from "node:fs/promises";
import * as path from "node:path";
import { Cancelled } from "../errors";
import { Breather } from "../util/breather";

export interface GitListing {
  /** Path relative to the folder → blob id, "" when git has none or the file was changed. */
  readonly files: ReadonlyMap<string, string>;
  /** Ignored files and, with a slash at the end, folders. */
  readonly ignored: readonly string[];
  /** Folders that git could not read, with a slash at the end. */
  readonly unreadable: readonly string[];
}

/** Repositories inside repositories are followed to this depth. */
const nestingMax = 3;
/** An answer of more bytes than this is no answer. */
const outputBytesMax = 256 * 1024 * 1024;
const ignoredMax = 2_000;

/** Undefined when there is no git, the folder is in no working tree, git refuses it, or lists nothing in it. */
export async function gitListing(root: string, signal: AbortSignal): Promise<GitListing | undefined> {
  const files = new Map<string, string>();
  const ignored: string[] = [];
  const unreadable: string[] = [];
  const into = { files, ignored, unreadable };
  const listed = await listInto(into, root, "", nestingMax, signal);
  return listed && files.size > 0 ? into : undefined;
}

interface Into {
  readonly files: Map<string, string>;
  readonly ignored: string[];
  readonly unreadable: string[];
}

async function listInto(
  into: Into,
  root: string,
  prefix: string,
  depth: number,
  signal: AbortSignal,
): Promise<boolean> {
  const folder = path.join(root, prefix);
  const inside = await git(folder, ["rev-parse", "--is-inside-work-tree"], signal);
  if (inside?.entries[0]?.trim() !== "true") return false;
  const breather = new Breather();
  const listings: Promise<GitOutput | undefined>[] = [];
  for (const args of [
    ["-s", "--cached"],
    ["-o", "--exclude-standard"],
    ["-m"],
    ["-o", "-i", "--exclude-standard", "--directory"],
  ]) {
    const listing = git(folder, ["ls-files", "-z", ...args], signal);
    // Waited for below; cancelled meanwhile, it must not count as unhandled.
    listing.catch(() => undefined);
    listings.push(listing);
    // Starting a process holds this thread for some milliseconds: not four times in a row.
    await breather.breathe();
  }
  const [known, other, changed, ignored] = await Promise.all(listings);
  if (known === undefined || other === undefined) return false;

  const changedPaths = new Set(changed?.entries);
  const nested: string[] = [];
  for (const entry of known.entries) {
    if (breather.due) await breather.breathe();
    const { file, blob, isRepository } = parseEntry(entry);
    if (isRepository) nested.push(file);
    else into.files.set(prefix + file, changedPaths.has(file) ? "" : blob);
  }
  for (const entry of other.entries) {
    if (breather.due) await breather.breathe();
    if (entry.endsWith("/")) nested.push(entry.slice(0, -1));
    else into.files.set(prefix + entry, "");
  }
  for (const entry of (ignored?.entries ?? []).slice(0, ignoredMax)) into.ignored.push(prefix + entry);
  for (const folderName of other.unreadable) into.unreadable.push(prefix + folderName);
  if (depth > 0) {
    for (const name of nested) {
      if (await isRepositoryFolder(path.join(folder, name)))
        await listInto(into, root, `${prefix}${name}/`, depth - 1, signal);
    }
  }
  return true;
}

/** "mode id stage<TAB>path"; a conflict lists a path once for each of its stages, and no blob is what lies on disk. */
function parseEntry(entry: string): { file: string; blob: string; isRepository: boolean } {
  const tab = entry.indexOf("\t");
  const [mode = "", id = "", stage = ""] = entry.slice(0, tab).split(" ");
  return { file: entry.slice(tab + 1), blob: stage === "0" ? id : "", isRepository: mode === "160000" };
}

async function isRepositoryFolder(folder: string): Promise<boolean> {
  try {
    await lstat(path.join(folder, ".git"));
    return true;
  } catch {
    return false;
  }
}

interface GitOutput {
  readonly entries: readonly string[];
  readonly unreadable: readonly string[];
}

/** Runs git and splits what it prints at NUL bytes. Undefined when it cannot be run or fails. */
function git(folder: string, args: readonly string[], signal: AbortSignal): Promise<GitOutput | undefined> {
  return new Promise((resolve, reject) => {
    // A repository may name programs for git to run; none is needed for a listing.
    const child = spawn("git", ["-c", "core.fsmonitor=false", ...args], {
      cwd: folder,
      env: gitEnvironment(process.env),
      stdio: ["ignore", "pipe", "pipe"],
      windowsHide: true,
    });
    const entries: string[] = [];
    let rest: Buffer = Buffer.alloc(0);
    let bytes = 0;
    let complaints = "";
    const stop = (): void => {
      child.kill();
      reject(new Cancelled());
    };
    signal.addEventListener("abort", stop, { once: true });
    if (signal.aborted) stop();
    child.stdout.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > outputBytesMax) child.kill();
      const all = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
      const end = all.lastIndexOf(0);
      if (end >= 0) entries.push(...all.toString("utf8", 0, end).split("\0"));
      rest = all.subarray(end + 1);
    });
    child.stderr.on("data", (chunk: Buffer) => {
      if (complaints.length < 100_000) complaints += chunk.toString();
    });
    child.on("error", () => resolve(undefined));
    child.on("close", (code) => {
      signal.removeEventListener("abort", stop);
      if (rest.length > 0) entries.push(rest.toString("utf8"));
      resolve(code === 0 ? { entries, unreadable: unreadableFolders(complaints) } : undefined);
    });
  });
}

function unreadableFolders(complaints: string): readonly string[] {
  return [...complaints.matchAll(/could not open directory '(.+?)\/?': /g)].map(([, folder = ""]) => `${folder}/`);
}

/** Without what a surrounding git command (a hook) may have set, which would make git look at another repository. */
function gitEnvironment(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const kept = Object.entries(env).filter(
    ([name]) => !/^GIT_(DIR|WORK_TREE|INDEX_FILE|PREFIX|OBJECT_DIRECTORY|COMMON_DIR)$/.test(name),
  );
  return { ...Object.fromEntries(kept), GIT_OPTIONAL_LOCKS: "0", GIT_TERMINAL_PROMPT: "0", LC_ALL: "C" };
}
