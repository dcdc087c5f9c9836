import { describe, expect, it } from "vitest";
import { describePlan, diskBudget, memoryBudget, memoryPlan, planNote } from "../../../../engine/contexts/budgets";

/** As Qwen2.5-Coder 0.5B has it. */
const half = {
  kvBytesPerToken: 12_288,
  sideCarBytesPerToken: 792,
  layers: 24,
  kvHeads: 2,
  blockTokens: 64,
  vocabSize: 151_936,
  workBytes: 30e6,
};
/** 64 blocks of 48 extents of 16 KiB. */
const attendedBytes = 64 * 64 * half.kvBytesPerToken;

describe("budgets", () => {
  it("are what the user says, and a share of the machine when he says nothing", () => {
    expect(memoryBudget({ memoryGigabytes: 0.25 }, { memoryBytes: 64e9 })).toBe(250_000_000);
    expect(memoryBudget({ memoryGigabytes: 0 }, { memoryBytes: 16e9 })).toBe(2e9);
    expect(memoryBudget({ memoryGigabytes: 0 }, { memoryBytes: 1e9 })).toBe(0.5e9);
    expect(memoryBudget({ memoryGigabytes: 0 }, { memoryBytes: 1e12 })).toBe(8e9);
    expect(diskBudget({ diskGigabytes: 3 }, 0, 0)).toBe(3e9);
    expect(diskBudget({ diskGigabytes: 0 }, 30e9, 10e9)).toBe(10e9);
    expect(diskBudget({ diskGigabytes: 0 }, 1e9, 0)).toBe(1e9);
  });

  it("hold a million tokens of the default model under 2 GB, and 128 k under 256 MB", () => {
    expect(memoryPlan(2e9, 20e9, half).contextTokensMax).toBeGreaterThan(1_048_576);
    expect(memoryPlan(256e6, 20e9, half).contextTokensMax).toBeGreaterThan(131_072);
  });

  it("never promise more than there is", () => {
    for (const memoryBytes of [150e6, 333e6, 7e9]) {
      const plan = memoryPlan(memoryBytes, 1e12, half);
      const inMemory = plan.contextTokensMax * half.sideCarBytesPerToken + plan.residentTokens * half.kvBytesPerToken;
      expect(plan.memoryBytes).toBe(memoryBytes);
      expect(inMemory).toBeLessThanOrEqual(memoryBytes);
      expect(inMemory).toBeGreaterThan(memoryBytes / 2);
      expect(plan.blockBytes).toBeGreaterThan(attendedBytes);
      expect(planNote(plan)).toBe("");
    }
    const small = memoryPlan(8e9, 100e6, half);
    expect(small.contextTokensMax * (half.kvBytesPerToken + half.sideCarBytesPerToken)).toBeLessThan(100e6);
  });

  it("are held to what one step attends to, and say so", () => {
    const least = memoryPlan(1e6, 20e9, half);
    expect(least.blockBytes).toBeGreaterThan(attendedBytes);
    expect(least.blockBytes).toBeLessThan(attendedBytes * 1.1);
    expect(least.memoryBytes).toBeGreaterThan(least.blockBytes);
    expect(planNote(least)).toBe(
      "One step of this model attends to more than nosa.memoryGigabytes of 0.00 GB holds; it takes 0.11 GB.",
    );
    const enough = memoryPlan(least.memoryBytes, 20e9, half);
    expect(enough.blockBytes).toBe(least.blockBytes);
    expect(planNote(enough)).toBe("");
    expect(planNote(memoryPlan(least.memoryBytes - 1, 20e9, half))).not.toBe("");
  });

  it("count the engine beside what was read: more words and larger layers take more", () => {
    const { engineBytes } = memoryPlan(2e9, 20e9, half);
    expect(engineBytes).toBeGreaterThan(half.workBytes + 60e6);
    expect(memoryPlan(2e9, 20e9, { ...half, vocabSize: 49_152, workBytes: 12e6 }).engineBytes).toBeLessThan(
      engineBytes - 40e6,
    );
  });

  it("are printed with what they are good for", () => {
    const line = describePlan(memoryPlan(2e9, 20e9, half));
    expect(line).toContain("2.00 GB of memory for what is read, 1.00 GB of it for KV (81380 tokens at once)");
    expect(line).toContain("0.12 GB for the engine itself");
    expect(line).toMatch(/20\.00 GB of disk; contexts of up to \d+ tokens$/);
  });
});
