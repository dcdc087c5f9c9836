import { describe, expect, it } from "vitest";
import { Moves } from "../../../bench/lib/moves.mjs";
import { random, testSeed } from "../../support/random";

const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, at) => from + at);

describe("Moves", () => {
  it("counts what stays, what is new, and what was there before", () => {
    const moves = new Moves(1_000);
    // One layer of two heads. The first goes away and comes back, the second stays.
    moves.add([range(0, 64), range(0, 64)]);
    moves.add([range(4, 68), range(0, 64)]);
    moves.add([range(0, 64), range(0, 64)]);
    expect(moves.steps).toBe(3);
    expect(moves.summary()).toEqual({
      overlap: (60 / 64 + 1) / 2,
      // Four new blocks in each of two steps, for one head of two.
      misses64: 2,
      // With 128 slots they are still there when they come back.
      misses128: 1,
      keptMin: 60,
      changesMax: 4,
      sizeMin: 64,
    });
    const [layer, ...rest] = moves.heads(2);
    expect(rest).toEqual([]);
    expect(layer).toEqual({ overlap: (60 / 64 + 1) / 2, misses64: 2, misses128: 1 });
  });

  it("never counts a tail's own blocks as missing", () => {
    const moves = new Moves(10);
    moves.add([range(0, 12)]);
    // Block 12 has just begun; block 11 was there and is not chosen any more.
    moves.add([[...range(0, 11), 12]]);
    expect(moves.summary()).toMatchObject({ misses64: 0, misses128: 0, keptMin: 12, changesMax: 0 });
    // It was left out for a step, and is not new when it comes back.
    moves.add([range(0, 13)]);
    expect(moves.summary()).toMatchObject({ misses64: 0, keptMin: 12, changesMax: 1 });
  });

  it("says that nobody had to choose when every block was attended to", () => {
    const moves = new Moves(10);
    moves.add([[], []]);
    moves.add([[], []]);
    expect(moves.counted).toBe(false);
  });

  it("agrees with a plain count of an LRU of 128 slots", () => {
    const { next } = random(testSeed());
    const moves = new Moves(400);
    let resident: number[] = [];
    let missed = 0;
    const steps = 60;
    for (let step = 0; step < steps; step++) {
      const blocks = [...new Set(Array.from({ length: 64 }, () => Math.floor(next() * 300)))].sort((a, b) => a - b);
      if (step > 0) missed += blocks.filter((block) => !resident.includes(block)).length;
      resident = [...resident.filter((block) => !blocks.includes(block)), ...blocks].slice(-128);
      moves.add([blocks]);
    }
    expect(moves.summary().misses128).toBeCloseTo(missed / (steps - 1), 9);
  });
});
