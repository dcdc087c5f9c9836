// Look-ups over a context, of three kinds: a signature, the beginning of a body, a call. Each asks to quote a line, and its beginning is given: what is to be
// written stands once, at a place that the question names, and neither name nor beginning tells it.
import { question as signatureQuestion } from "../bench/lookups/definitions.mjs";

const notCode =
  /^\s*(?:#|\/\/|\/\*|\*|"""|import |from |use |pub use |package |require|export |'use strict')|require\(/;
/** What follows a name in code, and not in a sentence. */
const use = /^(?:\(|<|::|\.\w|\[|\{|!\()/;
const answerMax = 70;
/** So many letters and no fewer, or it might be guessed. */
const lettersMin = { definition: 6, calls: 5 };

/**
 * `{signature, definition, calls}`: all questions of each kind, of names that `known` (bench/lookups/definitions.mjs) defines in `files`.
 * @returns {Record<"signature" | "definition" | "calls", {kind: string, path: string, question: string, start: string, answer: string}[]>}
 */
export function lookupQuestions(files, known) {
  const lines = new Lines(files);
  return {
    signature: known.map((each) => ({ kind: "signature", path: each.path, ...signatureQuestion(each) })),
    definition: known.flatMap((each) => definitionQuestion(each, lines)),
    calls: known.flatMap((each) => callQuestion(each, lines)),
  };
}

/** Which lines stand where, and how often. */
class Lines {
  #byPath;
  #all;

  constructor(files) {
    this.#byPath = new Map(files.map(({ path, text }) => [path, text.split("\n")]));
    this.#all = [...this.#byPath.values()].flat().map((line) => line.trim());
  }

  of(path) {
    return this.#byPath.get(path) ?? [];
  }

  paths() {
    return [...this.#byPath.keys()];
  }

  standsOnce(line) {
    return this.#all.filter((each) => each === line.trim()).length === 1;
  }

  /** How many begin with these words. */
  beginningWith(words) {
    const lead = words.trim();
    return this.#all.filter((each) => each.startsWith(lead) && !/^\w/.test(each.slice(lead.length))).length;
  }
}

/**
 * The first line of the body: the answer begins with the line that defines the name, and the first word below it, so that no model takes the answer to be
 * at its end there.
 */
function definitionQuestion({ name, path, line, language }, lines) {
  const [first, next = ""] = lines.of(path).slice(line - 1);
  const [word = ""] = /^\W*\w+/.exec(next) ?? [];
  const rest = next.slice(word.length);
  if (!isTelling(rest, lettersMin.definition) || !lines.standsOnce(next)) return [];
  return [
    {
      kind: "definition",
      path,
      question: `Quote the definition of \`${name}\`, exactly as it stands in the repository.`,
      start: `\`\`\`${language}\n${first}\n${word}`,
      answer: endless(rest),
    },
  ];
}

/** What a line hands to the name or does with it, in another file than the one that defines it if there is such a line. */
function callQuestion(definition, lines) {
  const { name, path, line } = definition;
  const word = new RegExp(`\\b${name}\\b`);
  const paths = [...lines.paths().filter((each) => each !== path), path];
  for (const user of paths) {
    for (const [at, text] of lines.of(user).entries()) {
      if (!text.includes(name) || notCode.test(text) || (user === path && at === line - 1)) continue;
      const found = word.exec(text);
      if (found === null) continue;
      const before = text.slice(0, found.index);
      const rest = text.slice(found.index + name.length).trimEnd();
      const isOther = rest !== definition.rest && use.test(rest) && isTelling(rest, lettersMin.calls);
      if (isOther && lines.beginningWith(before + name) === 1) return [callAsked(definition, { user, before, rest })];
    }
  }
  return [];
}

function callAsked({ name, language }, { user, before, rest }) {
  return {
    kind: "calls",
    path: user,
    question: `Quote the line of \`${user}\` that uses \`${name}\`, exactly as it stands in the repository.`,
    start: `\`\`\`${language}\n${before.trimStart()}${name}`,
    answer: endless(rest),
  };
}

function isTelling(text, letters) {
  return text.length <= answerMax && (text.match(/[A-Za-z]/g) ?? []).length >= letters;
}

/** Without what closes the line, which models write together with the line's end. */
function endless(text) {
  return text.replace(/\W+$/, "");
}
