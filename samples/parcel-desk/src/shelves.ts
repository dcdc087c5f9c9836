/**
 * Which parcel lies where.
 *
 * Shelf names are a letter for the size (S, M, L) and a number from 1: "M17". A parcel gets the lowest free number of its
 * size; when its own size is full it may take a place of the next larger size, never a smaller one.
 */

import type { DeskConfig } from "./config.js";
import { DeskError, type Dimensions, type Size } from "./types.js";

const sizes: readonly Size[] = ["small", "medium", "large"];
const letterOf: Readonly<Record<Size, string>> = { small: "S", medium: "M", large: "L" };

/** Longest side, sum of the three sides. */
const limitsMm: Readonly<Record<Size, readonly [number, number]>> = {
  small: [350, 600],
  medium: [600, 1_200],
  large: [1_200, 2_000],
};

/** The smallest size that holds a parcel; refuses one that fits nowhere. */
export function sizeOf(dimensions: Dimensions): Size {
  const sides = [dimensions.lengthMm, dimensions.widthMm, dimensions.heightMm];
  if (sides.some((side) => !(side > 0))) throw new DeskError(400, "Every side of a parcel must be longer than nothing.");
  const longest = Math.max(...sides);
  const sum = sides.reduce((total, side) => total + side, 0);
  const size = sizes.find((each) => longest <= limitsMm[each][0] && sum <= limitsMm[each][1]);
  if (size === undefined) throw new DeskError(422, "This parcel is too large for the desk.");
  return size;
}

export class Shelves {
  readonly #places: Readonly<Record<Size, number>>;
  readonly #taken = new Set<string>();

  constructor(config: Pick<DeskConfig, "places">) {
    this.#places = config.places;
  }

  /** Takes a place, the next larger size if need be; refuses when all of those are full. */
  take(size: Size): string {
    for (const candidate of sizes.slice(sizes.indexOf(size))) {
      const name = this.#lowestFree(candidate);
      if (name !== undefined) {
        this.#taken.add(name);
        return name;
      }
    }
    throw new DeskError(507, `No place left for a ${size} parcel.`);
  }

  /** Puts a place back in use as the journal says, at start. */
  restore(name: string): void {
    this.#taken.add(name);
  }

  release(name: string): void {
    if (!this.#taken.delete(name)) throw new Error(`Shelf ${name} was not taken`);
  }

  free(size: Size): number {
    const letter = letterOf[size];
    const used = [...this.#taken].filter((name) => name.startsWith(letter)).length;
    return this.#places[size] - used;
  }

  #lowestFree(size: Size): string | undefined {
    for (let number = 1; number <= this.#places[size]; number += 1) {
      const name = `${letterOf[size]}${number}`;
      if (!this.#taken.has(name)) return name;
    }
    return undefined;
  }
}
