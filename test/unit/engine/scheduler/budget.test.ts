import { describe, expect, it } from "vitest";
import { ChunkBudget, decodeSteps } from "../../../../engine/scheduler/budget";

describe("ChunkBudget", () => {
  it("begins with one grid step and grows with the measured speed, in whole grid steps", () => {
    const budget = new ChunkBudget(1_000);
    const first = budget.nextTokens();
    budget.measured(first, 100);
    expect(budget.nextTokens()).toBeGreaterThan(first);
    expect(budget.nextTokens() % first).toBe(0);
  });

  it("never asks for less than a grid step or more than its maximum", () => {
    const budget = new ChunkBudget(1_000);
    budget.measured(1, 10_000);
    expect(budget.nextTokens()).toBeGreaterThan(0);
    for (let times = 0; times < 50; times++) budget.measured(1_000_000, 1);
    expect(budget.nextTokens()).toBeLessThanOrEqual(8_192);
  });

  it("follows a machine that becomes slower, and does not believe empty measurements", () => {
    const budget = new ChunkBudget(1_000);
    budget.measured(4_000, 1_000);
    const fast = budget.tokensPerSecond;
    budget.measured(0, 1_000);
    expect(budget.tokensPerSecond).toBe(fast);
    budget.measured(100, 1_000);
    expect(budget.tokensPerSecond).toBeLessThan(fast);
  });
});

describe("decodeSteps", () => {
  it("shows the first token as soon as it is there, and never runs long without looking up", () => {
    expect(decodeSteps(0)).toBe(1);
    for (let command = 1; command < 100; command++) expect(decodeSteps(command)).toBeLessThanOrEqual(8);
  });
});
