// A held-out repository → a context of a wanted size, and what is asked of it. Everything has one right answer, taken from the code itself.
import { definitions, question } from "../bench/lookups/definitions.mjs";

/** Tests and examples repeat what the rest says. */
const aside =
  /(?:^|\/)(?:tests?|testing|benches|benchmarks?|examples?|_examples|docs)\/|_test\.go$|(?:^|\/)test_|\.(?:test|spec|bench)\./;
const notCode = /^\s*(?:#|\/\/|\/\*|\*|"""|import |from |use |package |require|export \*|'use strict')/;
const prefixCharacters = 1_600;
const suffixCharacters = 600;

/**
 * Runs of neighbouring files of 80 to 100 % of `tokens` tokens by `count`, no file in two of them; one file is "live": it stands in the tail, being
 * written, and not in the context. `[{repository, files, live, lookups, lines}]`
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
  const known = definitions(files);
  const live = liveFile(files, known);
  if (live === undefined) return undefined;
  const rest = files.filter((file) => file !== live.file);
  const asked = interleaved([
    known
      .filter(({ path }) => path !== live.file.path)
      .map((each) => ({ kind: "signature", path: each.path, ...question(each) })),
    whereQuestions(known, live.file.path),
    callQuestions(rest, known),
  ]).slice(0, lookups);
  return asked.length < lookups / 2
    ? undefined
    : { repository, files: rest, live: live.file, lookups: asked, lines: live.lines.slice(0, lines) };
}

/** The file with most lines that use what another file defines: `{file, lines: [{prefix, suffix, line, name}]}`. */
function liveFile(files, known) {
  const home = new Map(known.map(({ name, path }) => [name, path]));
  let best;
  for (const file of files) {
    const text = file.text.split("\n");
    const lines = text.flatMap((line, at) => {
      if (at < 3 || line.trim().length < 16 || line.trim().length > 100 || notCode.test(line)) return [];
      const name = (line.match(/[A-Za-z_]\w{4,}(?=[({<!:.])/g) ?? []).find(
        (each) => (home.get(each) ?? file.path) !== file.path,
      );
      if (name === undefined) return [];
      const prefix = `${text.slice(0, at).join("\n")}\n`.slice(-prefixCharacters);
      const suffix = `\n${text.slice(at + 1).join("\n")}`.slice(0, suffixCharacters);
      // What the text around it shows is no question to the repository.
      return prefix.includes(name) || suffix.includes(name) ? [] : [{ path: file.path, prefix, suffix, line, name }];
    });
    if (file.text.length >= 2_000 && lines.length > (best?.lines.length ?? 0)) best = { file, lines };
  }
  return best;
}

function whereQuestions(known, livePath) {
  return known
    .filter(({ path }) => path !== livePath)
    .map(({ name, path }) => ({
      kind: "where",
      path,
      question: `In which file is \`${name}\` defined?`,
      start: `\`${name}\` is defined in \``,
      answer: path,
    }));
}

/** Names that one other file uses, and it alone. */
function callQuestions(files, known) {
  const words = files.map(({ path, text }) => ({ path, names: new Set(text.match(/\w+/g) ?? []) }));
  return known.flatMap(({ name, path }) => {
    const users = words.filter((file) => file.path !== path && file.names.has(name));
    const [user] = users;
    if (users.length !== 1) return [];
    return [
      {
        kind: "calls",
        path: user.path,
        question: `Which file other than \`${path}\` uses \`${name}\`?`,
        start: `Beside \`${path}\`, \`${name}\` is used in \``,
        answer: user.path,
      },
    ];
  });
}

/** One of each list in turn, spread over each list. */
function interleaved(lists) {
  const spread = lists.map((list) => [...list].sort((a, b) => order(a) - order(b)));
  const result = [];
  for (let at = 0; at < Math.max(...lists.map(({ length }) => length)); at += 1) {
    for (const list of spread) if (at < list.length) result.push(list[at]);
  }
  return result;
}

/** FNV-1a: an order that has nothing to do with the files'. */
function order({ question: text }) {
  let hash = 0x811c9dc5;
  for (let at = 0; at < text.length; at += 1) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  return hash >>> 0;
}
