import { describe, expect, it } from "vitest";
import { noFocus, pinnedBlocksMax, selectionBudget, selectionFor } from "../../../../engine/contexts/selection";

const span = (path: string, startLine: number, endLine: number) => ({ path, startLine, endLine });
const whole = (path: string) => span(path, 0, 0);

/** Two segments: three files of a folder together, and a long file. */
const segments = [
  {
    key: "src",
    blockLines: [
      [span("src/a.ts", 1, 20)],
      [span("src/a.ts", 21, 30), span("src/b.ts", 1, 5)],
      [span("src/b.ts", 6, 9), span("src/c.ts", 1, 12)],
    ],
  },
  {
    key: "doc",
    blockLines: Array.from({ length: 100 }, (_, index) => [span("doc/long.md", index * 10 + 1, index * 10 + 10)]),
  },
];

describe("selectionFor", () => {
  it("asks for the published budget and nothing else when nothing is wanted", () => {
    expect(selectionFor(segments, noFocus)).toEqual({ ...selectionBudget, masked: [], pinned: [] });
  });

  it("pins the blocks of lines, files and folders, on top of the budget", () => {
    const lines = selectionFor(segments, { ...noFocus, pins: [span("doc/long.md", 15, 31)] });
    expect(lines.pinned).toEqual([{ sequence: 2, from: 1, to: 4 }]);
    expect(lines.totalBlocks).toBe(selectionBudget.totalBlocks + 3);
    expect(selectionFor(segments, { ...noFocus, pins: [whole("src/b.ts")] }).pinned).toEqual([
      { sequence: 1, from: 1, to: 3 },
    ]);
    expect(selectionFor(segments, { ...noFocus, pins: [whole("src/")] }).pinned).toEqual([
      { sequence: 1, from: 0, to: 3 },
    ]);
    expect(selectionFor(segments, { ...noFocus, pins: [whole("gone.ts")] }).pinned).toEqual([]);
  });

  it("pins no more than is of use", () => {
    const { pinned, totalBlocks } = selectionFor(segments, { ...noFocus, pins: [whole("src/"), whole("doc/")] });
    expect(pinned.reduce((sum, { from, to }) => sum + to - from, 0)).toBe(pinnedBlocksMax);
    expect(totalBlocks).toBe(selectionBudget.totalBlocks + pinnedBlocksMax);
  });

  it("attends to what a question names on top of the budget and of pins, each block once", () => {
    const named = [
      { key: "doc", from: 1, to: 3 },
      { key: "gone", from: 0, to: 1 },
      { key: "doc", from: 2, to: 4 },
    ];
    const alone = selectionFor(segments, { ...noFocus, named });
    expect(alone.pinned).toEqual([{ sequence: 2, from: 1, to: 4 }]);
    expect(alone.totalBlocks).toBe(selectionBudget.totalBlocks + 3);
    const both = selectionFor(segments, { ...noFocus, named, pins: [span("doc/long.md", 31, 55), whole("src/a.ts")] });
    expect(both.pinned).toEqual([
      { sequence: 2, from: 1, to: 4 },
      { sequence: 1, from: 0, to: 2 },
      { sequence: 2, from: 4, to: 6 },
    ]);
    expect(both.totalBlocks).toBe(selectionBudget.totalBlocks + 7);
  });

  it("masks everything outside the scope, but no block that has a part in it", () => {
    expect(selectionFor(segments, { ...noFocus, scope: [whole("src/a.ts")] }).masked).toEqual([
      { sequence: 1, from: 2, to: 3 },
      { sequence: 2, from: 0, to: 100 },
    ]);
  });

  it("hides every block that holds a hidden line", () => {
    const { masked } = selectionFor(segments, {
      ...noFocus,
      hidden: [span("src/b.ts", 2, 3), span("doc/long.md", 1, 1)],
    });
    expect(masked).toEqual([
      { sequence: 1, from: 1, to: 2 },
      { sequence: 2, from: 0, to: 1 },
    ]);
  });
});
