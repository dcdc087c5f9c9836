import { describe, expect, it } from "vitest";
import { Pace } from "../../../../extension/completions/pace";

function typed(gapMs: number, latencyMs: number): Pace {
  const pace = new Pace();
  for (let key = 0; key < 60; key += 1) {
    pace.keyPressed(1000 + key * gapMs);
    pace.answered(latencyMs);
  }
  return pace;
}

describe("the pace of completions", () => {
  it("hardly waits for a fast engine", () => {
    expect(typed(150, 60).delayMs).toBe(25);
  });

  it("waits a little longer than the gap between keys for a slow engine", () => {
    const { delayMs } = typed(120, 2000);
    expect(delayMs).toBeGreaterThan(120);
    expect(delayMs).toBeLessThan(180);
  });

  it("never waits longer than 300 ms, however slow both are", () => {
    expect(typed(900, 60_000).delayMs).toBe(300);
  });

  it("does not take thinking for typing", () => {
    const pace = typed(100, 5000);
    const before = pace.delayMs;
    pace.keyPressed(1_000_000);
    pace.keyPressed(1_030_000);
    expect(pace.delayMs).toBe(before);
  });
});
