import { execFile } from "node:child_process";

/** A longer diff is cut: the model reads it word by word, unlike the repository, which it has read already. */
export const diffCharactersMax = 12_000;

export interface WorkingDiff {
  /** "" when nothing changed. */
  readonly text: string;
  /** Relative to the root. */
  readonly paths: readonly string[];
  readonly isCut: boolean;
}

/** What the working tree of a repository changes against its last commit, staged or not. Throws what git says. */
export async function workingDiff(root: string): Promise<WorkingDiff> {
  return diff(root, ["HEAD"]);
}

/** What a commit would hold: what is staged, or else all that changed, as the editor commits it. Throws what git says. */
export async function commitDiff(root: string): Promise<WorkingDiff> {
  const staged = await diff(root, ["--cached"]);
  if (staged.text !== "") return staged;
  const changed = await diff(root, []);
  const listed = await git(root, ["ls-files", "--others", "--exclude-standard"]);
  const added = listed.split("\n").filter((line) => line !== "");
  const names = added.slice(0, addedMax).map((path) => `New file: ${path}`);
  return { ...changed, text: [changed.text, ...names].filter((part) => part !== "").join("\n") };
}

/** Most new files that are named. */
const addedMax = 40;

/** First lines of the latest commits, newest first; none before the first commit. */
export async function latestSubjects(root: string, count: number): Promise<readonly string[]> {
  const text = await git(root, ["log", `--max-count=${count}`, "--no-merges", "--format=%s"]).catch(() => "");
  return text.split("\n").filter((line) => line.trim() !== "");
}

async function diff(root: string, against: readonly string[]): Promise<WorkingDiff> {
  const plain = ["--no-ext-diff", "--no-textconv", "--no-color", "--relative", "--unified=3"];
  const whole = await git(root, ["diff", ...against, ...plain]);
  const paths = [...whole.matchAll(/^\+\+\+ b\/([^\t\n]+)/gm)].map((match) => match[1] ?? "");
  return { ...cutAtLine(whole, diffCharactersMax), paths };
}

/** As many whole lines as fit. */
export function cutAtLine(diff: string, charactersMax: number): { readonly text: string; readonly isCut: boolean } {
  if (diff.length <= charactersMax) return { text: diff.trimEnd(), isCut: false };
  const kept = diff.slice(0, charactersMax);
  const lastLine = kept.lastIndexOf("\n");
  return { text: `${kept.slice(0, Math.max(0, lastLine))}\n…`, isCut: true };
}

function git(root: string, args: readonly string[]): Promise<string> {
  // A repository's own configuration must not start programs of its choice.
  const safe = ["-c", "core.fsmonitor=false", "-c", "core.quotePath=false"];
  return new Promise((resolve, reject) => {
    execFile(
      "git",
      [...safe, ...args],
      { cwd: root, maxBuffer: 64 * 2 ** 20, timeout: 20_000, windowsHide: true },
      (error, stdout, stderr) => {
        if (error === null) resolve(stdout);
        else reject(new Error(stderr.trim() === "" ? error.message : stderr.trim()));
      },
    );
  });
}
