// A held-out repository → a context of a wanted size, and what is asked of it. Everything has one right answer, taken from the code itself.
import { definitions } from "../bench/lookups/definitions.mjs";
import { crossFileLines, cutWithin, homes } from "./crossFile.mjs";
import { lookupQuestions } from "./questions.mjs";

/** Tests and examples repeat what the rest says. */
const aside =
  /(?:^|\/)(?:tests?|testing|benches|benchmarks?|examples?|_examples|docs)\/|_test\.go$|(?:^|\/)test_|\.(?:test|spec|bench)\./;
/** Files that are being written: so many at most, and beside the first one so much of the context's text. */
const liveFilesMax = 4;
const liveShareMax = 0.25;
const liveCharactersMin = 2_000;

/**
 * Runs of neighbouring files of 80 to 100 % of `tokens` tokens by `count`, no file in two of them. Some files are "live": they stand in the tail, being
 * written, and not in the context. `[{repository, files, live, lookups, lines}]`; the first live file has most lines to write.
 */
export function windows(repository, tokens, count, { lookups, lines }) {
  const found = [];
  let run = [];
  let total = 0;
  const end = () => {
    const made = total >= 0.8 * tokens ? windowOf(repository.name, run, { lookups, lines }) : undefined;
    if (made !== undefined) found.push(made);
    run = [];
    total = 0;
  };
  for (const file of repository.files.filter((each) => !aside.test(each.path))) {
    const size = count(file.text);
    if (size > tokens / 2) continue;
    if (total + size > tokens) end();
    run.push(file);
    total += size;
  }
  end();
  return found;
}

function windowOf(repository, files, { lookups, lines }) {
  const { live, lines: written } = liveFiles(files, lines);
  if (live.length === 0) return undefined;
  const away = new Set(live.map(({ path }) => path));
  const rest = files.filter(({ path }) => !away.has(path));
  // Names and lines that stand once in all files do in what is left of them.
  const known = definitions(files).filter(({ path }) => !away.has(path));
  const asked = interleaved(Object.values(lookupQuestions(rest, known))).slice(0, lookups);
  if (asked.length < lookups / 2) return undefined;
  return { repository, files: rest, live, lookups: asked, lines: written };
}

/**
 * Files whose lines use what another file defines, and `wanted` of these lines, each with a point within it: `{live, lines}`. One file if it has enough of
 * them; else that with most lines more is taken as well, while there is room. What a line uses stays in the context.
 */
export function liveFiles(files, wanted) {
  const home = homes(files);
  const found = files
    .filter(({ text }) => text.length >= liveCharactersMin)
    .map((file) => ({ file, lines: crossFileLines(file, home) }))
    .filter(({ lines }) => lines.length > 0);
  const room = liveShareMax * files.reduce((sum, { text }) => sum + text.length, 0);
  let live = [];
  let lines = [];
  while (live.length < liveFilesMax && (live.length === 0 || lines.length < wanted)) {
    const taken = live.reduce((sum, { file }) => sum + file.text.length, 0);
    const more = found
      .filter((each) => !live.includes(each) && (live.length === 0 || taken + each.file.text.length <= room))
      .map((each) => ({ live: [...live, each], lines: linesOf([...live, each]) }));
    const best = more.reduce(
      (most, each) => (each.lines.length > (most?.lines.length ?? lines.length) ? each : most),
      undefined,
    );
    if (best === undefined) break;
    ({ live, lines } = best);
  }
  const drawn = [...lines].sort((a, b) => order(idOf(a)) - order(idOf(b))).slice(0, wanted);
  return {
    live: live.map(({ file }) => file),
    lines: drawn.map((each, at) => ({
      ...each,
      id: idOf(each),
      cut: cutWithin(each.line, { withinWord: at % 2 === 1, seed: order(idOf(each)) }),
    })),
  };
}

/** Those whose names are defined in none of these files. */
function linesOf(live) {
  const away = new Set(live.map(({ file }) => file.path));
  return live.flatMap(({ lines }) => lines.filter(({ home }) => !away.has(home)));
}

function idOf({ path, number }) {
  return `${path}:${number}`;
}

/** One of each list in turn, spread over each list. */
function interleaved(lists) {
  const spread = lists.map((list) => [...list].sort((a, b) => order(a.question) - order(b.question)));
  const result = [];
  for (let at = 0; at < Math.max(...lists.map(({ length }) => length)); at += 1) {
    for (const list of spread) if (at < list.length) result.push(list[at]);
  }
  return result;
}

/** FNV-1a: an order that has nothing to do with the files'. */
function order(text) {
  let hash = 0x811c9dc5;
  for (let at = 0; at < text.length; at += 1) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  return hash >>> 0;
}
