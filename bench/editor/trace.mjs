// What a person types in the benchmark, made from the text of real files: stretches of lines that are deleted and typed again in bursts, with the pauses,
// slips and looks around of a person. Pure, and the same for the same seed.
import { seeded, shuffled } from "../lib/random.mjs";

const linesMin = 4;
const linesMax = 8;
/** Stretches of one file, so that the cursor visits many. */
const perFileMax = 2;

/** Of a person who types some 80 words a minute: the least pause between keys, and what comes on top of it on average. */
const gapMsMin = 60;
const gapMsSpread = 80;
const gapMsMax = 450;
const slipShare = 0.03;
const wanderShare = 0.06;
/** How often somebody takes an offer that is what was to be typed. */
const acceptShare = 0.6;

/** Places to type at, in a random order: `[{path, startLine, endLine, text, random}]`, lines from 0, the end exclusive. */
export function stretches(files, seed) {
  const found = files.flatMap(({ path, text }) => {
    const random = seeded(`${seed} ${path}`);
    const lines = text.split("\n");
    const own = [];
    for (let tries = 0; tries < 40 && own.length < perFileMax; tries += 1) {
      const startLine = 1 + Math.floor(random() * lines.length);
      const endLine = startLine + linesMin + Math.floor(random() * (linesMax - linesMin + 1));
      const stretch = lines.slice(startLine, endLine);
      if (endLine >= lines.length || !isCode(stretch) || own.some((each) => meets(each, startLine, endLine))) continue;
      own.push({ path, startLine, endLine, text: stretch.join("\n") });
    }
    return own;
  });
  return shuffled(found, seeded(seed)).map((each) => ({
    ...each,
    random: seeded(`${seed} ${each.path}:${each.startLine}`),
  }));
}

/**
 * The next burst of somebody who has `rest` left to type: `{keys: [{key, gapMs, slip?}], wanders, accepts, lookMs}`. A slip is a wrong key pressed before
 * and taken back. A new line comes with its indentation, as an editor gives it.
 */
export function nextBurst(rest, random) {
  const [line] = /^\n+ */.exec(rest) ?? [""];
  const words = line === "" ? rest.slice(0, burstLength(rest, random)) : line;
  const keys = [...words].map((key, index) => ({
    key,
    gapMs: line !== "" && index > 0 ? 0 : gap(random),
    slip: /[a-z]/.test(key) && random() < slipShare ? neighbourOf(key, random) : undefined,
  }));
  return {
    keys,
    wanders: random() < wanderShare,
    accepts: random() < acceptShare,
    lookMs: 150 + gap(random) * 2,
  };
}

/** One to some nine characters, most often to the end of a word or sign, and never beyond the line. */
function burstLength(rest, random) {
  const lineEnd = rest.indexOf("\n");
  const inLine = lineEnd < 0 ? rest.length : lineEnd;
  const wanted = Math.min(inLine, 1 + Math.floor(random() * 9));
  if (random() < 0.3) return wanted;
  const end = /^\w*[^\w\n]?/.exec(rest.slice(wanted))[0].length;
  return Math.min(inLine, wanted + Math.min(end, 6));
}

function gap(random) {
  return Math.min(gapMsMax, gapMsMin - gapMsSpread * Math.log(1 - random()));
}

const rows = ["qwertyuiop", "asdfghjkl", "zxcvbnm"];

function neighbourOf(key, random) {
  const row = rows.find((each) => each.includes(key));
  const at = row.indexOf(key);
  const side = at === 0 ? 1 : at === row.length - 1 ? -1 : random() < 0.5 ? 1 : -1;
  return row[at + side];
}

/** Lines that a person types: mostly statements, no tables, no prose, nothing that a keyboard lacks. */
function isCode(lines) {
  const said = lines.filter((line) => line.trim() !== "");
  const statements = said.filter((line) => /\w{2}/.test(line) && !/^\s*(?:\/\/|\/?\*)/.test(line));
  return (
    statements.length >= 3 &&
    statements.length >= 0.7 * lines.length &&
    lines[0].trim() !== "" &&
    lines.every((line) => line.length <= 100 && /^[ -~]*$/.test(line) && line === line.trimEnd())
  );
}

function meets(other, startLine, endLine) {
  return startLine < other.endLine + 2 && other.startLine < endLine + 2;
}
