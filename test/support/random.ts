/**
 * Fresh random numbers in every run; the seed is printed, and NOSA_TEST_SEED repeats a run.
 */

export interface Random {
  /** In [0, 1). */
  next(): number;
  /** A whole number in [low, high]. */
  between(low: number, high: number): number;
  pick<T>(from: readonly T[]): T;
}

export function testSeed(): number {
  const seed = Number(process.env["NOSA_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
  console.log(`seed ${seed} (repeat with NOSA_TEST_SEED)`);
  return seed;
}

/** Mulberry32: small, and good enough to choose test cases. */
export function random(seed: number): Random {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const between = (low: number, high: number): number => low + Math.floor(next() * (high - low + 1));
  return {
    next,
    between,
    pick: (from) => {
      const picked = from[between(0, from.length - 1)];
      if (picked === undefined) throw new Error("Nothing to pick from.");
      return picked;
    },
  };
}
