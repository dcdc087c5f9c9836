// What git says of two states of a project.
import { spawnSync } from "node:child_process";

const words = ["diff", "--no-prefix", "--no-color", "--no-ext-diff", "--no-renames", "--histogram", "-U0"];

/** Path → indices of the lines that the newer of two folders has and the older lacks. */
export function addedBetweenFolders(older, newer) {
  // Git writes absolute paths without the slash in front.
  const prefix = `${newer.replace(/^\//, "")}/`;
  const added = addedIn(git(["--no-index", older, newer], { codes: [0, 1] }));
  return new Map(
    [...added]
      .map(([path, lines]) => [path.replace(/^\//, ""), lines])
      .filter(([path]) => path.startsWith(prefix))
      .map(([path, lines]) => [path.slice(prefix.length), lines]),
  );
}

/** The same of two commits of the repository at `folder`. */
export function addedBetweenCommits(folder, older, newer) {
  return addedIn(git([older, newer], { cwd: folder, codes: [0] }));
}

function git(rest, { cwd, codes }) {
  const options = { cwd, encoding: "utf8", maxBuffer: 2 ** 28 };
  const { stdout, status, stderr } = spawnSync("git", [...words, ...rest], options);
  if (!codes.includes(status)) throw new Error(`git could not compare two states: ${stderr}`);
  return stdout;
}

function addedIn(text) {
  const found = new Map();
  let path = "";
  for (const line of text.split("\n")) {
    if (line.startsWith("+++ ")) path = line.slice("+++ ".length).replace(/\t$/, "");
    const [, start, count = "1"] = /^@@ -\S+ \+(\d+)(?:,(\d+))? @@/.exec(line) ?? [];
    if (start === undefined) continue;
    const lines = found.get(path) ?? [];
    for (let at = 0; at < Number(count); at += 1) lines.push(Number(start) - 1 + at);
    found.set(path, lines);
  }
  return found;
}
