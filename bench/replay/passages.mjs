// The passages of a repository that share most words with the text around a cursor: what a way may paste or attend to instead of what the product chooses.

/** So many lines with something on them, before and behind the cursor, say what is being written. */
const linesBefore = 12;
const linesAfter = 4;
const lettersMin = 3;
const wordsMax = 96;
/** Blocks that are compared as one; what follows them is shown with them, for it is what is wanted. */
const comparedBlocks = 2;
const shownBlocks = 3;
const word = /[\p{L}_$][\p{L}\p{N}_$]*/gu;

/** The words around a cursor, the nearest first. */
export function wordsAround(before, after) {
  const above = linesOf(before).slice(-linesBefore).reverse();
  const below = linesOf(after).slice(0, linesAfter);
  const words = [...above, ...below].flatMap((line) => line.match(word) ?? []);
  return [...new Set(words)].filter(({ length }) => length >= lettersMin).slice(0, wordsMax);
}

/** What a context's segments say, and which of their blocks have a word: `[{key, blockLines, text, starts, blocksOf}]`. Made once of a context. */
export function segmentsOf({ model, plans }) {
  const size = model.info.blockTokens;
  return plans.map(({ contentKey: key, blockLines, tokens }) => {
    const texts = blockLines.map((_, block) => model.decode([...tokens.slice(size * block, size * (block + 1))]));
    const starts = [0];
    for (const text of texts) starts.push(starts.at(-1) + text.length);
    const text = texts.join("");
    const blocksOf = new Map();
    let block = 0;
    for (const { 0: found, index } of text.matchAll(word)) {
      while (starts[block + 1] <= index) block += 1;
      const known = blocksOf.get(found) ?? [];
      if (known.at(-1) !== block) known.push(block);
      blocksOf.set(found, known);
    }
    return { key, blockLines, text, starts, blocksOf };
  });
}

/** `[{key, path, from, to}]`, blocks of one file each, the most alike first; no two overlap, and none holds a span that `isHidden`. */
export function passagesNear(words, segments, { passagesMax, isHidden }) {
  const all = segments.reduce((sum, { blockLines }) => sum + blockLines.length, 0);
  const shared = segments.map(({ blockLines }) => new Float64Array(blockLines.length));
  for (const each of words) {
    const places = segments.map(({ blocksOf }) => blocksOf.get(each) ?? []);
    const count = places.flat().length;
    for (const [at, own] of places.entries()) {
      let from = 0;
      for (const block of own) {
        // A word counts once for each run that it stands in, a rare one more.
        for (let run = Math.max(from, block - comparedBlocks + 1); run <= block; run += 1)
          shared[at][run] += Math.log(1 + all / count);
        from = block + 1;
      }
    }
  }
  const found = shared.flatMap((scores, at) =>
    [...scores].flatMap((score, from) => (score > 0 ? [{ segment: segments[at], from, score }] : [])),
  );
  const chosen = [];
  for (const { segment, from } of found.sort((a, b) => b.score - a.score)) {
    if (chosen.length >= passagesMax) break;
    const { key, blockLines } = segment;
    const to = Math.min(from + shownBlocks, blockLines.length);
    const spans = blockLines.slice(from, to).flat();
    if (spans.length === 0 || spans.some((span) => span.path !== spans[0].path || isHidden(span))) continue;
    if (chosen.some((each) => each.key === key && from < each.to && each.from < to)) continue;
    chosen.push({ key, path: spans[0].path, from, to });
  }
  return chosen;
}

/** Whole lines of a passage, but for the first one: it may have begun before, or be the file's header. */
export function textOf(segments, { key, from, to }) {
  const { text, starts } = segments.find((segment) => segment.key === key);
  const own = text.slice(starts[from], starts[to]);
  return own.slice(own.indexOf("\n") + 1, Math.max(own.indexOf("\n"), own.lastIndexOf("\n")) + 1);
}

function linesOf(text) {
  return text.split("\n").filter((line) => line.trim() !== "");
}
