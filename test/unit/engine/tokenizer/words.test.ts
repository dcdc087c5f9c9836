import { describe, expect, it } from "vitest";
import { preTokenizer, preTokenizerNames } from "../../../../engine/tokenizer/preTokenizers";
import {
  boundedWords,
  chunkCharacters,
  chunksOf,
  cutWords,
  wordCharactersMax,
} from "../../../../engine/tokenizer/words";
import { awkwardText, randomUnicode } from "../../../support/corpus";
import { random, testSeed } from "../../../support/random";

const draw = random(testSeed());

function text(characters: number): string {
  const parts: string[] = [];
  for (let size = 0; size < characters;) {
    const part =
      draw.next() < 0.2
        ? randomUnicode(draw, 50)
        : `${"  ".repeat(draw.between(0, 9))}const x${draw.between(0, 9999)} = "it's" ;\r\n\n`;
    parts.push(part);
    size += part.length;
  }
  return parts.join("") + awkwardText(draw);
}

/** One name for each way of cutting. */
const names = [...new Map(preTokenizerNames().map((name) => [String(preTokenizer(name)?.patterns), name])).values()];

/** Whether no surrogate stands alone. */
function isWhole(part: string): boolean {
  return Buffer.from(part).toString() === part;
}

describe.each(names)("words as %s cuts them", (name) => {
  const patterns = preTokenizer(name)?.patterns ?? [];

  it("put together are the text", () => {
    const whole = text(20_000);
    expect(cutWords(whole, patterns).join("")).toBe(whole);
    expect(cutWords("", patterns)).toEqual([]);
  });

  it("are the same whether the text is cut into chunks before or not", () => {
    const whole = text(4 * chunkCharacters);
    const chunks = [...chunksOf(whole)];
    expect(chunks.length).toBeGreaterThan(2);
    expect(chunks.flatMap((chunk) => cutWords(chunk, patterns))).toEqual(cutWords(whole, patterns));
  });
});

it("refuses a name it does not know", () => {
  expect(preTokenizer("no-such-thing")).toBeUndefined();
});

it("bounds words and chunks, and parts no character", () => {
  const letters = "𝒳".repeat(wordCharactersMax);
  const words = [...boundedWords(letters)];
  expect(words.join("")).toBe(letters);
  expect(words.every((word) => word.length <= wordCharactersMax && isWhole(word))).toBe(true);
  const chunks = [...chunksOf(letters)];
  expect(chunks.join("")).toBe(letters);
  expect(chunks.every((chunk) => chunk.length <= chunkCharacters + wordCharactersMax && isWhole(chunk))).toBe(true);
});
