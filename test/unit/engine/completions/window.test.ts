import { describe, expect, it } from "vitest";
import { CompletionWindow } from "../../../../engine/completions/window";

describe("CompletionWindow", () => {
  it("shrinks on a slow machine and grows on a fast one, within bounds", () => {
    const slow = new CompletionWindow();
    for (let times = 0; times < 20; times++) slow.measured(100, 10_000);
    expect(slow.prefixTokensMax).toBe(128);
    const fast = new CompletionWindow();
    for (let times = 0; times < 20; times++) fast.measured(100, 5);
    expect(fast.prefixTokensMax).toBe(1_024);
    expect(fast.suffixTokensMax("prefix-first")).toBeLessThanOrEqual(96);
    // Where it is read once, more of it costs little on the fast one, and no more on the slow one.
    expect(fast.suffixTokensMax("suffix-first")).toBeGreaterThan(96);
    expect(slow.suffixTokensMax("suffix-first")).toBe(slow.suffixTokensMax("prefix-first"));
  });

  it("keeps its size while the speed is about right, and does not believe a few tokens", () => {
    const window = new CompletionWindow();
    const before = window.prefixTokensMax;
    for (const ms of [600, 800, 1_200]) window.measured(before, ms);
    window.measured(3, 10_000);
    window.measured(3, 0.1);
    expect(window.prefixTokensMax).toBe(before);
  });
});
