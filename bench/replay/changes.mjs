// What a release changed → lines to hide and to complete.
import { spawnSync } from "node:child_process";
import { seeded, shuffled } from "../lib/random.mjs";

const linesOfChange = 3;
const lettersMin = 10;
const charactersMax = 120;
const comment = /^\s*(?:\/\/|\/?\*|#(?!!)|"""|''')/;

/**
 * Changes of one step in path order, each the lines that were added to one file: `[[case, case, case], ...]`. A case is one of these lines, hidden from the
 * file as the release has it: `{id, path, line, before, after, right}`. The cursor stands behind the line's indentation, where an editor puts it.
 */
export function changesOf({ name, from, to, base, next, baseFolder, nextFolder }) {
  const old = new Map(base.map(({ path, text }) => [path, text]));
  const kept = new Set(next.map(({ path }) => path));
  const gone = new Set(base.filter(({ path }) => !kept.has(path)).flatMap(({ text }) => trimmedLines(text)));
  const added = addedLines(baseFolder, nextFolder);
  return next.flatMap(({ path, text }) => {
    // What was only moved or indented anew is no new line.
    const before = new Set(trimmedLines(old.get(path) ?? ""));
    const lines = text.split("\n");
    const eligible = (added.get(path) ?? []).filter((at) => {
      const line = lines[at]?.trim() ?? "";
      return isWorthTyping(line) && !before.has(line) && !gone.has(line);
    });
    if (eligible.length < linesOfChange) return [];
    const drawn = shuffled(eligible, seeded(`${name} ${to} ${path}`)).slice(0, linesOfChange);
    return [drawn.map((at) => caseOf({ id: `${name} ${from}-${to} ${path}:${at + 1}`, path, lines, at }))];
  });
}

function caseOf({ id, path, lines, at }) {
  const [indentation] = /^\s*/.exec(lines[at]);
  const above = lines.slice(0, at).map((line) => `${line}\n`);
  const below = lines.slice(at + 1).map((line) => `\n${line}`);
  return { id, path, line: at, before: above.join("") + indentation, after: below.join(""), right: lines[at].trim() };
}

function isWorthTyping(line) {
  return line.replaceAll(/\W/g, "").length >= lettersMin && line.length <= charactersMax && !comment.test(line);
}

/** Path → indices of the lines of the newer state that the older one lacks. */
function addedLines(baseFolder, nextFolder) {
  const words = ["diff", "--no-index", "--no-prefix", "--no-color", "--no-renames", "--histogram", "-U0"];
  const { stdout, status, stderr } = spawnSync("git", [...words, baseFolder, nextFolder], {
    encoding: "utf8",
    maxBuffer: 2 ** 28,
  });
  if (status !== 0 && status !== 1) throw new Error(`git could not compare two releases: ${stderr}`);
  const found = new Map();
  let path;
  for (const line of stdout.split("\n")) {
    if (line.startsWith("+++ ")) path = pathIn(line.slice("+++ ".length), nextFolder);
    const [, start, count = "1"] = /^@@ -\S+ \+(\d+)(?:,(\d+))? @@/.exec(line) ?? [];
    if (start === undefined || path === undefined) continue;
    const lines = found.get(path) ?? [];
    for (let at = 0; at < Number(count); at += 1) lines.push(Number(start) - 1 + at);
    found.set(path, lines);
  }
  return found;
}

/** Git writes absolute paths without the slash in front. */
function pathIn(name, folder) {
  const at = name.indexOf(folder.replace(/^\//, ""));
  return at < 0 ? undefined : name.slice(at + folder.replace(/^\//, "").length + 1).replace(/\t$/, "");
}

function trimmedLines(text) {
  return text.split("\n").map((line) => line.trim());
}
