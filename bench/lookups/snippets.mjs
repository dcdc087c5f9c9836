// What assistants without a context do: the passages that match a question's words best (BM25), as a prompt.

const passageLines = 40;
const stepLines = 30;
/** The usual constants of BM25. */
const k1 = 1.2;
const b = 0.75;

/** Ranks passages of `files` ([{path, text}]) for questions. */
export class Snippets {
  #passages;
  #documentFrequency = new Map();
  #lengthMean;

  constructor(files) {
    this.#passages = files.flatMap(({ path, text }) => passagesOf(path, text));
    for (const { counts } of this.#passages) {
      for (const word of counts.keys()) this.#documentFrequency.set(word, (this.#documentFrequency.get(word) ?? 0) + 1);
    }
    this.#lengthMean = this.#passages.reduce((sum, { length }) => sum + length, 0) / this.#passages.length;
  }

  /** Passages, best first: `[{path, text}]`. */
  ranked(question) {
    const words = new Set(wordsOf(question));
    return this.#passages
      .map((passage) => ({ ...passage, score: this.#score(passage, words) }))
      .sort((x, y) => y.score - x.score)
      .map(({ path, text }) => ({ path, text }));
  }

  #score({ counts, length }, words) {
    let score = 0;
    for (const word of words) {
      const count = counts.get(word) ?? 0;
      if (count === 0) continue;
      const having = this.#documentFrequency.get(word);
      const rarity = Math.log(1 + (this.#passages.length - having + 0.5) / (having + 0.5));
      score += (rarity * count * (k1 + 1)) / (count + k1 * (1 - b + (b * length) / this.#lengthMean));
    }
    return score;
  }
}

/** Tokens of the best passages for `question`, each as a file of the prompt's format, `tokensMax` at most; the best stand last, next to the question. */
export async function snippetTokens(model, snippets, question, tokensMax) {
  const parts = [];
  let left = tokensMax;
  const never = new AbortController().signal;
  for (const { path, text } of snippets.ranked(question)) {
    const { headerTokens, tokens } = await model.text.file(path, text, never);
    if (headerTokens.length + tokens.length > left) break;
    left -= headerTokens.length + tokens.length;
    parts.unshift([...headerTokens, ...tokens]);
  }
  return parts.flat();
}

function passagesOf(path, text) {
  const lines = text.split("\n");
  const passages = [];
  for (let from = 0; from < lines.length; from += stepLines) {
    const part = lines.slice(from, from + passageLines).join("\n");
    const words = wordsOf(`${path} ${part}`);
    const counts = new Map();
    for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
    passages.push({ path, text: part, counts, length: words.length });
    if (from + passageLines >= lines.length) break;
  }
  return passages;
}

/** Names whole and in their parts, in small letters. */
function wordsOf(text) {
  return (text.match(/\w+/g) ?? []).flatMap((name) => {
    const parts = name.split(/_|(?<=[a-z0-9])(?=[A-Z])/).filter((part) => part !== "");
    return (parts.length > 1 ? [name, ...parts] : [name]).map((word) => word.toLowerCase());
  });
}
