import { describe, expect, it } from "vitest";
import { liveLines } from "../../../../engine/completions/live";
import type { SegmentRecord } from "../../../../engine/contexts/context";

const segment = (path: string, lines: number): SegmentRecord => ({
  key: path,
  tokens: 640,
  files: [path],
  blockLines: [[{ path, startLine: 1, endLine: lines }]],
});
const text = (lines: number): string => "x\n".repeat(lines);

describe("liveLines", () => {
  it("covers what the prompt holds, and little more", () => {
    const live = { path: "a.ts", before: text(500), after: text(499), linesBefore: 40, linesAfter: 5 };
    const [place] = liveLines([segment("a.ts", 999)], live);
    expect(place?.path).toBe("a.ts");
    expect(place?.startLine).toBeLessThanOrEqual(461);
    expect(place?.startLine).toBeGreaterThan(430);
    expect(place?.endLine).toBeGreaterThanOrEqual(506);
    expect(place?.endLine).toBeLessThan(540);
  });

  it("allows for lines that moved since the file was read", () => {
    const live = { path: "a.ts", before: text(700), after: text(499), linesBefore: 40, linesAfter: 5 };
    const [place] = liveLines([segment("a.ts", 999)], live);
    // 200 lines were added somewhere: what is around line 700 now was around 500, or is still there.
    expect(place?.startLine).toBeLessThanOrEqual(461);
    expect(place?.endLine).toBeGreaterThanOrEqual(705);
  });

  it("hides nothing of a file that was not read", () => {
    expect(
      liveLines([segment("b.ts", 9)], { path: "a.ts", before: "", after: "", linesBefore: 0, linesAfter: 0 }),
    ).toEqual([]);
  });
});
