// Numbers that look drawn and are the same for the same seed.
import { createHash } from "node:crypto";

/** A function that gives numbers from 0 to 1; `seed` is any text. */
export function seeded(seed) {
  let state = createHash("sha256").update(seed).digest().readUInt32LE() || 1;
  return () => {
    // xorshift32.
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

/** The same items in an order drawn by `random`. */
export function shuffled(items, random) {
  const order = [...items];
  for (let left = order.length; left > 1; left -= 1) {
    const at = Math.floor(random() * left);
    [order[left - 1], order[at]] = [order[at], order[left - 1]];
  }
  return order;
}
