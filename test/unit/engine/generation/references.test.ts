import { describe, expect, it } from "vitest";
import { references } from "../../../../engine/generation/references";
import { random, testSeed } from "../../../support/random";

const span = (path: string, startLine: number, endLine: number) => ({ path, startLine, endLine });

/** `blocks` blocks of ten lines each. */
const segment = (path: string, blocks: number) => ({
  blockLines: Array.from({ length: blocks }, (_, block) => [span(path, block * 10 + 1, block * 10 + 10)]),
});

describe("references", () => {
  it("names nothing when nothing was attended to", () => {
    expect(references([], [segment("a.ts", 4)], { countMax: 5 })).toEqual([]);
    expect(references([{ sequence: 0, block: 0, mass: 1 }], [segment("a.ts", 4)], { countMax: 5 })).toEqual([]);
  });

  it("leaves out the header and what is outside of every segment", () => {
    const masses = [
      { sequence: 0, block: 0, mass: 9 },
      { sequence: 1, block: 2, mass: 0.5 },
      { sequence: 7, block: 0, mass: 5 },
      { sequence: 1, block: 99, mass: 5 },
    ];
    const [only, ...rest] = references(masses, [segment("a.ts", 4)], { countMax: 5 });
    expect(only).toEqual({ path: "a.ts", startLine: 21, endLine: 30, share: 1 });
    expect(rest).toEqual([]);
  });

  it("keeps what is above the average, joins neighbours and puts the best first", () => {
    const segments = [segment("a.ts", 6), segment("b.ts", 6)];
    const masses = [
      { sequence: 1, block: 2, mass: 0.2 },
      { sequence: 1, block: 3, mass: 0.2 },
      { sequence: 2, block: 4, mass: 0.3 },
      { sequence: 2, block: 1, mass: 0.001 },
    ];
    const found = references(masses, segments, { countMax: 5 });
    expect(found.map(({ path, startLine, endLine }) => [path, startLine, endLine])).toEqual([
      ["a.ts", 21, 40],
      ["b.ts", 41, 50],
    ]);
    expect(found[0]?.share).toBeCloseTo(0.4 / 0.701);
  });

  it("does not take the attention that every first block gets for interest in it", () => {
    const segments = [segment("a.ts", 4), segment("b.ts", 4), segment("c.ts", 4)];
    const masses = [
      ...[1, 2, 3].map((sequence) => ({ sequence, block: 0, mass: 0.3 })),
      { sequence: 2, block: 2, mass: 0.05 },
    ];
    expect(references(masses, segments, { countMax: 5 })).toEqual([
      { path: "b.ts", startLine: 21, endLine: 30, share: 0.05 / 0.95 },
    ]);
  });

  it("splits a block that several small files share, and shows no more than asked", () => {
    const shared = { blockLines: [[], [span("a.ts", 1, 3), span("b.ts", 1, 4)], []] };
    const found = references([{ sequence: 1, block: 1, mass: 0.6 }], [shared], { countMax: 5 });
    expect(found).toHaveLength(2);
    expect(references([{ sequence: 1, block: 1, mass: 0.6 }], [shared], { countMax: 1 })).toHaveLength(1);
  });

  describe("with what neutral answers draw on", () => {
    const segments = [segment("a.ts", 6), segment("b.ts", 6)];
    /** Half of the attention always goes to block 3 of b.ts. */
    const neutral = [
      { sequence: 2, block: 3, mass: 0.02 },
      { sequence: 1, block: 1, mass: 0.01 },
      { sequence: 2, block: 1, mass: 0.01 },
    ];

    it("does not name what is attended to whatever is asked", () => {
      const masses = [
        { sequence: 2, block: 3, mass: 0.18 },
        { sequence: 1, block: 4, mass: 0.15 },
        { sequence: 1, block: 1, mass: 0.05 },
      ];
      const [best, ...rest] = references(masses, segments, { countMax: 5, neutral });
      expect(best).toMatchObject({ path: "a.ts", startLine: 41, endLine: 50 });
      expect(rest).toEqual([]);
      const [without] = references(masses, segments, { countMax: 5 });
      expect(without?.path).toBe("b.ts");
    });

    it("names such a place all the same when an answer draws on it more than others do", () => {
      const masses = [
        { sequence: 2, block: 3, mass: 0.9 },
        { sequence: 1, block: 1, mass: 0.1 },
      ];
      const found = references(masses, segments, { countMax: 5, neutral });
      expect(found.map(({ path, startLine }) => [path, startLine])).toEqual([["b.ts", 31]]);
    });

    it("compares shares, so that an answer that draws on the repository more is measured the same", () => {
      const answer = (factor: number) => [
        { sequence: 2, block: 3, mass: 0.18 * factor },
        { sequence: 1, block: 4, mass: 0.15 * factor },
        { sequence: 2, block: 5, mass: 0.08 * factor },
      ];
      const one = references(answer(1), segments, { countMax: 5, neutral });
      const many = references(answer(7), segments, { countMax: 5, neutral });
      expect(one.length).toBeGreaterThan(1);
      expect(many.map(({ path, startLine }) => [path, startLine])).toEqual(
        one.map(({ path, startLine }) => [path, startLine]),
      );
    });
  });

  it("leaves out what received little beside the best", () => {
    const masses = [
      { sequence: 1, block: 1, mass: 0.5 },
      { sequence: 1, block: 4, mass: 0.15 },
      { sequence: 2, block: 1, mass: 0.15 },
    ];
    const segments = [segment("a.ts", 6), segment("b.ts", 6)];
    const starts = (shareOfBestMin: number) =>
      references(masses, segments, { countMax: 5, shareOfBestMin }).map(({ startLine }) => startLine);
    expect(starts(0)).toEqual([11, 41, 11]);
    expect(starts(0.25)).toEqual([11]);
  });

  it("finds a block that stands out of noise, wherever it is", () => {
    const { next } = random(testSeed());
    for (let round = 0; round < 200; round++) {
      const segments = Array.from({ length: 1 + Math.floor(next() * 8) }, (_, at) =>
        segment(`f${at}.ts`, 1 + Math.floor(next() * 20)),
      );
      const blocks = segments.flatMap(({ blockLines }, at) =>
        blockLines.map((_, block) => ({ sequence: at + 1, block })),
      );
      const usual = blocks.map((place) => ({ ...place, mass: (place.block === 0 ? 5 : 1) * next() }));
      const chosen = blocks[Math.floor(next() * blocks.length)];
      if (chosen === undefined) continue;
      const extra = 12 + next();
      const masses = usual.map((each) =>
        each.sequence === chosen.sequence && each.block === chosen.block ? { ...each, mass: each.mass + extra } : each,
      );
      const [best] = references(masses, segments, { countMax: 1, neutral: usual, shareOfBestMin: 0.5 });
      // A repository of one block has nothing to stand out of.
      if (blocks.length === 1) expect(best).toBeUndefined();
      else if (blocks.filter(({ block }) => (block === 0) === (chosen.block === 0)).length > 1) {
        expect(best?.path).toBe(`f${chosen.sequence - 1}.ts`);
        expect(best?.startLine).toBeLessThanOrEqual(chosen.block * 10 + 1);
        expect(best?.endLine).toBeGreaterThanOrEqual(chosen.block * 10 + 10);
      }
    }
  });
});
