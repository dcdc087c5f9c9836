import { expect, it } from "vitest";
import { countLines, vocabularyLines } from "../../../../engine/tokenizer/lines";
import { stableSeam } from "../../../../engine/tokenizer/seam";
import { random, testSeed } from "../../../support/random";

const texts = ["x", "\n", "\n\n", "y\n", "\n  ", "", "\r\n"];
const parts = texts.map((text) => new TextEncoder().encode(text));
const offsets = Uint32Array.from({ length: texts.length + 1 }, (_, id) =>
  parts.slice(0, id).reduce((sum, part) => sum + part.length, 0),
);
const lines = vocabularyLines(Uint8Array.from(parts.flatMap((part) => [...part])), offsets);

it("counts the newlines of tokens and knows after which a line starts", () => {
  expect([...lines.newlines]).toEqual([0, 1, 2, 1, 1, 0, 1]);
  expect([...lines.endsLine]).toEqual([0, 1, 1, 1, 0, 0, 1]);
  expect(countLines(lines, Uint32Array.of(0, 1, 2, 3, 4, 5, 6))).toBe(6);
  expect(countLines(lines, Uint32Array.of(0, 1, 2), 1, 2)).toBe(1);
});

it("finds the same seam in a text and in that text moved by an edit above", () => {
  const draw = random(testSeed());
  for (let round = 0; round < 100; round++) {
    const tokens = Uint32Array.from({ length: 400 }, () => draw.pick([0, 0, 0, 1, 2, 3, 4, 5, 6]));
    const moved = Uint32Array.from([...Array.from({ length: 37 }, () => 0), ...tokens]);
    const seam = stableSeam(tokens, 100, 300, lines);
    expect(stableSeam(moved, 137, 337, lines)).toBe(seam === undefined ? undefined : seam + 37);
    if (seam !== undefined) expect(lines.endsLine[tokens[seam - 1] ?? 0]).toBe(1);
  }
  expect(stableSeam(Uint32Array.of(0, 0, 0), 0, 3, lines)).toBeUndefined();
});
