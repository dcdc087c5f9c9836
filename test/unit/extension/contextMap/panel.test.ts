import { describe, expect, it } from "vitest";
import type { ContextFile } from "../../../../engine/protocol";
import { mapFiles, parseFromMap } from "../../../../extension/contextMap/panel";

const file = (path: string, tokens: number, kind: "fresh" | "stale" = "fresh"): ContextFile => ({
  path,
  tokens,
  state: { kind },
});

describe("the context map", () => {
  it("draws what was read, and adds up the attention of each file's lines", () => {
    const files = [
      file("a.ts", 100),
      file("b.ts", 50, "stale"),
      file("empty.ts", 0),
      { path: ".env", tokens: 9, state: { kind: "leftOut", reason: "secret" } } as const,
    ];
    const lines = [
      { path: "a.ts", startLine: 3, endLine: 9, share: 0.1 },
      { path: "a.ts", startLine: 30, endLine: 41, share: 0.2 },
      { path: "gone.ts", startLine: 1, endLine: 2, share: 0.5 },
    ];
    const drawn = mapFiles({ files }, { lines }, (path) => path === "b.ts");
    expect(drawn.map(({ path }) => path)).toEqual(["a.ts", "b.ts"]);
    expect(drawn[0]?.share).toBeCloseTo(0.3);
    expect(drawn[0]).toMatchObject({ startLine: 30, endLine: 41, isPinned: false });
    expect(drawn[1]).toMatchObject({ share: 0, startLine: 0, isPinned: true });
  });

  it("opens nothing outside of the repository", () => {
    expect(parseFromMap({ kind: "open", path: "src/a.ts", line: 3 })).toEqual({
      kind: "open",
      path: "src/a.ts",
      line: 3,
    });
    for (const path of ["/etc/passwd", "../x", "a/../../x", 5]) {
      expect(parseFromMap({ kind: "open", path, line: 1 })).toBeUndefined();
    }
    for (const value of [
      null,
      "ready",
      {},
      { kind: "run" },
      { kind: "open", path: "a" },
      { kind: "open", path: "a", line: 0.5 },
    ]) {
      expect(parseFromMap(value)).toBeUndefined();
    }
    expect(parseFromMap({ kind: "ready", more: 1 })).toEqual({ kind: "ready" });
  });
});
