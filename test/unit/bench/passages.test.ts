import { describe, expect, it } from "vitest";
import { passagesNear, segmentsOf, textOf, wordsAround } from "../../../bench/replay/passages.mjs";
import { random, testSeed } from "../../support/random";

const blockTokens = 32;

/** A context whose tokens are characters, and whose blocks are padded to one line each; `paths`: the file of each block. */
function contextOf(blocks: readonly string[], paths: readonly string[]) {
  const text = blocks.map((block) => `${block.slice(0, blockTokens - 1).padEnd(blockTokens - 1, " ")}\n`).join("");
  const tokens = Uint32Array.from([...text], (character) => character.codePointAt(0) ?? 0);
  const blockLines = blocks.map((_, at) => [{ path: paths[at] ?? "a.ts", startLine: at + 1, endLine: at + 1 }]);
  return {
    model: { info: { blockTokens }, decode: (ids: readonly number[]) => String.fromCodePoint(...ids) },
    plans: [{ contentKey: "s", blockLines, tokens }],
  };
}

const everything = { passagesMax: 99, isHidden: () => false };

describe("passages that share words with the text around a cursor", () => {
  it("are looked for with the words nearest to it", () => {
    const before = `${"far away\n".repeat(20)}const { alpha, beta } = gamma;\n\n  return delta(`;
    const words = ["return", "delta", "const", "alpha", "beta", "gamma", "far", "away", "epsilon"];
    expect(wordsAround(before, ", alpha);\nepsilon\n")).toEqual(words);
    expect(wordsAround("", "")).toEqual([]);
  });

  it("are those with the rare words, and what follows is shown with them", () => {
    const blocks = Array.from({ length: 40 }, () => "common words");
    blocks[17] = "common rareOne";
    const segments = segmentsOf(contextOf(blocks, []));
    const [best] = passagesNear(["common", "rareOne"], segments, everything);
    expect(best).toEqual({ key: "s", path: "a.ts", from: 16, to: 19 });
    expect(passagesNear(["absent"], segments, everything)).toEqual([]);
  });

  it("never overlap, hold no hidden line, and are of one file each", () => {
    const draw = random(testSeed());
    const words = ["ab1", "cd2", "ef3"];
    const blocks = Array.from({ length: 60 }, () => words.filter(() => draw.between(0, 3) === 0).join(" "));
    const paths = blocks.map((_, at) => `file${Math.floor(at / 11)}.ts`);
    const hidden = draw.between(0, 59);
    const isHidden = ({ startLine }: { startLine: number }) => startLine === hidden + 1;
    const seen = new Set([hidden]);
    for (const passage of passagesNear(words, segmentsOf(contextOf(blocks, paths)), { passagesMax: 99, isHidden })) {
      for (let at = passage.from; at < passage.to; at++) {
        expect(seen.has(at)).toBe(false);
        seen.add(at);
        expect(paths[at]).toBe(passage.path);
      }
    }
  });

  it("are whole lines, without the one that they begin with", () => {
    const segments = segmentsOf(contextOf(["one\ntwo", "three\nfour"], []));
    const lines = textOf(segments, { key: "s", from: 0, to: 2 }).split("\n");
    expect(lines.map((line: string) => line.trim())).toEqual(["two", "three", "four", ""]);
  });
});
