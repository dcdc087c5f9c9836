// What a release changed → lines to hide and to complete.
import { seeded, shuffled } from "../lib/random.mjs";

const linesOfChange = 3;
const lettersMin = 10;
const charactersMax = 120;
const comment = /^\s*(?:\/\/|\/?\*|#(?!!)|"""|''')/;

/**
 * Changes of one step in path order: what was added to one file, or to all of them where `isOneChange`; three lines of each: `[[case, case, case], ...]`. A
 * case is one of these lines, hidden from the file as it is after the step: `{id, path, line, before, after, right}`. The cursor stands behind the line's
 * indentation, where an editor puts it.
 */
export function changesOf({ name, from, to, base, next, added, isOneChange = false }) {
  const old = new Map(base.map(({ path, text }) => [path, text]));
  const kept = new Set(next.map(({ path }) => path));
  const gone = new Set(base.filter(({ path }) => !kept.has(path)).flatMap(({ text }) => trimmedLines(text)));
  const changes = next.map(({ path, text }) => {
    // What was only moved or indented anew is no new line.
    const before = new Set(trimmedLines(old.get(path) ?? ""));
    const lines = text.split("\n");
    const eligible = (added.get(path) ?? []).filter((at) => {
      const line = lines[at]?.trim() ?? "";
      return isWorthTyping(line) && !before.has(line) && !gone.has(line);
    });
    return eligible.map((at) => caseOf({ id: `${name} ${from}-${to} ${path}:${at + 1}`, path, lines, at }));
  });
  return (isOneChange ? [changes.flat()] : changes)
    .filter((cases) => cases.length >= linesOfChange)
    .map((cases) => shuffled(cases, seeded(`${to} ${cases[0].id}`)).slice(0, linesOfChange));
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

function trimmedLines(text) {
  return text.split("\n").map((line) => line.trim());
}
