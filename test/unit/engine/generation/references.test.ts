import { describe, expect, it } from "vitest";
import { references } from "../../../../engine/generation/references";

const span = (path: string, startLine: number, endLine: number) => ({ path, startLine, endLine });

/** `blocks` blocks of ten lines each. */
const segment = (path: string, blocks: number) => ({
  blockLines: Array.from({ length: blocks }, (_, block) => [span(path, block * 10 + 1, block * 10 + 10)]),
});

describe("references", () => {
  it("names nothing when nothing was attended to", () => {
    expect(references([], [segment("a.ts", 4)], 5)).toEqual([]);
    expect(references([{ sequence: 0, block: 0, mass: 1 }], [segment("a.ts", 4)], 5)).toEqual([]);
  });

  it("leaves out the header and what is outside of every segment", () => {
    const masses = [
      { sequence: 0, block: 0, mass: 9 },
      { sequence: 1, block: 2, mass: 0.5 },
      { sequence: 7, block: 0, mass: 5 },
      { sequence: 1, block: 99, mass: 5 },
    ];
    const [only, ...rest] = references(masses, [segment("a.ts", 4)], 5);
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
    const found = references(masses, segments, 5);
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
    expect(references(masses, segments, 5)).toEqual([{ path: "b.ts", startLine: 21, endLine: 30, share: 0.05 / 0.95 }]);
  });

  it("splits a block that several small files share, and shows no more than asked", () => {
    const shared = { blockLines: [[], [span("a.ts", 1, 3), span("b.ts", 1, 4)], []] };
    const found = references([{ sequence: 1, block: 1, mass: 0.6 }], [shared], 5);
    expect(found).toHaveLength(2);
    expect(references([{ sequence: 1, block: 1, mass: 0.6 }], [shared], 1)).toHaveLength(1);
  });
});
