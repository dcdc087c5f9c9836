/** Attention masses of several commands → their average. */

import type { BlockMass } from "../native/addon";

/** Weighs what each command averaged over its own steps by how many they were. */
export class MassSum {
  readonly #sums = new Map<number, BlockMass>();
  #weight = 0;

  add(masses: readonly BlockMass[], weight: number): void {
    this.#weight += weight;
    for (const { sequence, block, mass } of masses) {
      const key = sequence * blocksPerSequenceMax + block;
      this.#sums.set(key, { sequence, block, mass: (this.#sums.get(key)?.mass ?? 0) + mass * weight });
    }
  }

  /** Best first. */
  average(): readonly BlockMass[] {
    if (this.#weight === 0) return [];
    return [...this.#sums.values()]
      .map((sum) => ({ ...sum, mass: sum.mass / this.#weight }))
      .sort((a, b) => b.mass - a.mass || a.sequence - b.sequence || a.block - b.block);
  }
}

const blocksPerSequenceMax = 2 ** 24;
