// The history of a git repository that is there, newest commits first, as steps: each commit beside the one before it.
import { spawnSync } from "node:child_process";
import path from "node:path";
import { addedBetweenCommits } from "./diff.mjs";
import { bytesMax, mayBeWritten, sourcesAmong } from "./sources.mjs";

/** As steps() of releases.mjs, with `isOneChange`: what a commit did to several files belongs together. */
export function* commits(folder) {
  const name = path.basename(path.resolve(folder)).replace(/\.git$/, "");
  const log = git(folder, ["log", "--no-merges", "--format=%H %P", "--max-count=2000"]);
  for (const line of log.split("\n")) {
    const [commit, parent] = line.split(" ");
    if (!parent) continue;
    const added = addedBetweenCommits(folder, parent, commit);
    if (![...added.keys()].some(mayBeWritten)) continue;
    const [base, next] = [filesOf(folder, parent), filesOf(folder, commit)];
    yield {
      name,
      from: parent.slice(0, 10),
      to: commit.slice(0, 10),
      licence: "",
      base,
      next,
      added,
      isOneChange: true,
    };
  }
}

/** Blobs are the same in most commits. */
const texts = new Map();

function filesOf(folder, commit) {
  const entries = git(folder, ["ls-tree", "-r", "-l", "-z", commit]).split("\0").filter(Boolean);
  const wanted = entries.flatMap((entry) => {
    const [, type, blob, bytes, name] = /^\d+ (\w+) (\w+) +(\S+)\t(.*)$/s.exec(entry) ?? [];
    return type === "blob" && mayBeWritten(name) && Number(bytes) <= bytesMax ? [{ path: name, blob }] : [];
  });
  for (const { blob } of wanted) if (!texts.has(blob)) texts.set(blob, git(folder, ["cat-file", "blob", blob]));
  return sourcesAmong(wanted.map((file) => ({ path: file.path, text: texts.get(file.blob) })));
}

function git(folder, words) {
  const { stdout, status, stderr } = spawnSync("git", words, { cwd: folder, encoding: "utf8", maxBuffer: 2 ** 28 });
  if (status !== 0) throw new Error(`git ${words[0]} failed: ${stderr}`);
  return stdout;
}
