import { expect, test } from "vitest";
import { waitOf } from "../../../bench/editor/probe/lateness.mjs";

/** Waits of moments spread evenly over `totalMs`, counted one by one: each that falls into a block waits until its end. */
function counted(blocks: readonly number[], totalMs: number, share: number): number {
  const waits: number[] = [];
  for (const block of blocks) for (let left = block; left > 0; left -= 0.01) waits.push(left);
  const free = Math.round(totalMs / 0.01) - waits.length;
  const sorted = [...waits.sort((a, b) => b - a)];
  const at = Math.floor((1 - share) * (waits.length + free));
  return at < sorted.length ? (sorted[at] ?? 0) : 0;
}

test("a block makes wait whatever becomes due in it, for what is left of it", () => {
  expect(waitOf([], 1000, 0.99)).toBe(0);
  expect(waitOf([9], 1000, 0.99)).toBe(0);
  expect(waitOf([100], 1000, 0.99)).toBeCloseTo(90);
  for (const blocks of [
    [3, 60, 4, 12, 12],
    [1, 1, 1],
    [200, 200, 1],
  ]) {
    expect(waitOf(blocks, 1000, 0.99)).toBeCloseTo(counted(blocks, 1000, 0.99), 0);
  }
});
