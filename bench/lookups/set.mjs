// The questions of the cache benchmark: definitions asked for by name, over 32 k and 128 k tokens of real code.
import { definitions, question } from "./definitions.mjs";
import { filesOf, nameOf } from "../cache/repositories.mjs";

/**
 * Repositories of each size: what their name has behind the usual one, and which window of the code. `spare` ones are asked what is left when the others hold
 * no more definitions.
 */
const repositories = {
  "32k": [
    { more: "", window: 0 },
    { more: "-b", window: 1 },
    { more: "-c", window: 2 },
    { more: "-d", window: 3, spare: true },
  ],
  "128k": [
    { more: "", window: 0 },
    { more: "-b", window: 1, spare: true },
  ],
};

/**
 * `[{name, files, questions}]`: `count` questions in all, the same number in each repository as far as there are so many, in an order that is always the same.
 * Spare repositories may be asked none.
 * @param {string} size
 * @param {number} count
 * @returns {{name: string, files: {path: string, text: string}[], questions: {definition: {name: string, path: string, line: number}, question: string, start: string, answer: string}[]}[]}
 */
export function lookupSet(size, count) {
  let left = count;
  let others = repositories[size].filter(({ spare }) => !spare).length;
  return repositories[size].map(({ more, window }) => {
    const files = filesOf(size, window);
    const wanted = Math.ceil(left / Math.max(1, others));
    const questions = shuffled(definitions(files))
      .slice(0, wanted)
      .map((definition) => ({ definition, ...question(definition) }));
    left -= questions.length;
    others -= 1;
    return { name: nameOf(size) + more, files, questions };
  });
}

/** Whether `--repositories A,B`, where it is given, names this one. */
export function isWanted(name, { repositories: wanted }) {
  return wanted === undefined || String(wanted).split(",").includes(name);
}

/** The same order for the same list. */
function shuffled(list) {
  const result = [...list];
  let state = 12_345;
  for (let i = result.length - 1; i > 0; i -= 1) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    const j = Math.floor((state / 2 ** 32) * (i + 1));
    [result[i], result[j]] = [result[j], result[i]];
  }
  return result;
}
