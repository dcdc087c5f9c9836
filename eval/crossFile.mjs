// Lines of a file that use what another file defines, and a point within each, as a completion meets them.

const notCode = /^\s*(?:#|\/\/|\/\*|\*|"""|import |from |use |pub use |package |require|export \*|'use strict')/;
const prefixCharacters = 1_600;
const suffixCharacters = 600;
/** What is left to write of a line that begins already. */
const restMin = 4;

/** A word that begins a definition, and the name; the last ones may be anything's within a function, so they count at the margin alone. */
const definers = [
  /^\s*(?:export |default |pub(?:\([^)]*\))? |async |abstract |static |unsafe |const )*(?:def|class|function\*?|fn|struct|enum|trait|interface) (\w+)/,
  /^func (?:\([^)]*\) )?(\w+)/,
  /^(?:export )?type (\w+)/,
  /^(?:export |pub )?(?:const|let|var|static) (\w+)/,
  /^(?:module\.)?exports\.(\w+) =/,
  /^([A-Z]\w+)(?:: [^=]+)? = /,
];
const nameMin = 5;

/** Path of the one file that defines a name: `Map(name → path)`. Names that several files define are left out. */
export function homes(files) {
  const found = new Map();
  for (const { path, text } of files) {
    for (const line of text.split("\n")) {
      for (const pattern of definers) {
        const name = pattern.exec(line)?.[1] ?? "";
        if (name.length < nameMin) continue;
        found.set(name, found.has(name) && found.get(name) !== path ? undefined : path);
        break;
      }
    }
  }
  return new Map([...found].filter(([, path]) => path !== undefined));
}

/**
 * Lines of `file` with a name whose home is another file: `[{path, number, name, home, prefix, line, suffix}]`, `number` from 1. Every line once, and
 * none whose name stands in the text around it: what is shown there is no question to the repository.
 * @returns {{path: string, number: number, name: string, home: string, prefix: string, line: string, suffix: string}[]}
 */
export function crossFileLines(file, home) {
  const text = file.text.split("\n");
  const seen = new Set();
  return text.flatMap((line, at) => {
    const trimmed = line.trim();
    if (at < 3 || trimmed.length < 16 || trimmed.length > 100 || notCode.test(line) || seen.has(trimmed)) return [];
    const name = (line.match(/[A-Za-z_]\w{4,}/g) ?? []).find((each) => (home.get(each) ?? file.path) !== file.path);
    if (name === undefined) return [];
    const prefix = `${text.slice(0, at).join("\n")}\n`.slice(-prefixCharacters);
    const suffix = `\n${text.slice(at + 1).join("\n")}`.slice(0, suffixCharacters);
    if (prefix.includes(name) || suffix.includes(name)) return [];
    seen.add(trimmed);
    return [{ path: file.path, number: at + 1, name, home: home.get(name), prefix, line, suffix }];
  });
}

/**
 * A point of `line` at which someone is typing it: `{typed, rest, withinWord}`. `seed` draws it, within a word if that is wanted and the line has such a
 * point, between words else.
 */
export function cutWithin(line, { withinWord, seed }) {
  const text = line.trimEnd();
  const from = text.length - text.trimStart().length + 1;
  const points = Array.from({ length: Math.max(0, text.length - restMin - from + 1) }, (_, at) => from + at);
  const isWithin = (point) => /^\w\w$/.test(text.slice(point - 1, point + 1));
  const fitting = points.filter((point) => isWithin(point) === withinWord);
  const choice = fitting.length > 0 ? fitting : points;
  const point = choice[seed % choice.length];
  return { typed: text.slice(0, point), rest: text.slice(point), withinWord: isWithin(point) };
}
