import { describe, expect, it } from "vitest";
import type { IndexProgress, IndexSummary } from "../../../engine/protocol";
import { progressText, summaryText } from "../../../extension/indexing";

const progress: IndexProgress = {
  root: "/code/shop",
  stage: "reading",
  filesDone: 10,
  filesTotal: 41,
  tokensDone: 5_310,
  tokensTotal: 12_345,
  tokensPerSecond: 351.2,
  secondsLeft: 20.1,
  path: "src/store.ts",
};
const summary: IndexSummary = {
  root: "/code/shop",
  files: 41,
  tokens: 12_345,
  tokensRead: 12_345,
  leftOut: 3,
  seconds: 35,
  complete: true,
};

describe("indexing", () => {
  it("shows how far, how fast and how long", () => {
    expect(progressText(progress)).toBe("43% · 5.3k of 12.3k tokens · 351 tokens/s · 21 s left");
  });

  it("promises nothing while it does not know", () => {
    const unknown = { ...progress, tokensDone: 0, tokensTotal: 0, tokensPerSecond: 0, secondsLeft: -1 };
    expect(progressText(unknown)).toBe("0% · 0 of 0 tokens");
  });

  it("names the other stages", () => {
    expect(progressText({ ...progress, stage: "scanning", filesTotal: 1 })).toBe("looking for files, 1 file so far");
    expect(progressText({ ...progress, stage: "saving" })).toBe("saving");
  });

  it("sums up what was read, what was known, and what was left out", () => {
    expect(summaryText("shop", summary)).toBe(
      "Nosa has read shop: 41 files, 12.3k tokens (12.3k tokens read in 35 s). 3 files left out.",
    );
    expect(summaryText("shop", { ...summary, tokensRead: 0, leftOut: 0 })).toBe(
      "Nosa knows shop already: 41 files, 12.3k tokens.",
    );
    expect(summaryText("shop", { ...summary, complete: false })).toContain("has read a part of shop");
  });
});
