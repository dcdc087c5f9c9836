/**
 * Tails that are kept so that the next request prefills only what is new.
 *
 * A tail is a native sequence behind a fixed set of segments. A kept one serves again when the set is the same and the
 * new prompt begins as the old one did; when only a part of it is shared, a copy of it serves and the old one stays.
 */

import type { NativeSequence } from "../native/addon";
import type { Scheduler } from "../scheduler/scheduler";
import type { SegmentRecord } from "./context";

export interface Tail {
  readonly sequence: NativeSequence;
  /** Attended sequence 0 is the header; `segments[i]` is attended sequence i + 1. */
  readonly segments: readonly SegmentRecord[];
  /** Equal for tails that attend the same. */
  readonly attends: string;
  /** What native code was last told of blocks to choose, as JSON; "" for nothing yet. */
  readonly selection: string;
}

interface Kept {
  readonly tail: Tail;
  readonly tokens: Uint32Array;
}

/** A copy is only worth making for at least one whole block. */
const sharedTokensMin = 64;

/** Owns the tails that nobody uses at the moment, most recently used first. */
export class TailPool {
  readonly #scheduler: Scheduler;
  readonly #tailsMax: number;
  #kept: Kept[] = [];
  /** What every prompt begins with; copied, never given away. */
  #base: Kept | undefined;
  #closed = false;

  constructor(scheduler: Scheduler, tailsMax: number) {
    this.#scheduler = scheduler;
    this.#tailsMax = tailsMax;
  }

  get size(): number {
    return this.#kept.length;
  }

  /** The segments behind which a tail is kept that attends `attends`; undefined when there is none. */
  segmentsOf(attends: string): readonly SegmentRecord[] | undefined {
    return this.#kept.find(({ tail }) => tail.attends === attends)?.tail.segments;
  }

  /** A tail that attends `attends`, to be given back by `release` or `drop`. */
  async acquire(attends: string, tokens: Uint32Array, create: () => Promise<Tail>): Promise<Tail> {
    let best: Kept | undefined;
    let bestShared = 0;
    for (const kept of this.#kept) {
      if (kept.tail.attends !== attends) continue;
      const shared = sharedPrefix(kept.tokens, tokens);
      if (shared > bestShared) [best, bestShared] = [kept, shared];
    }
    const base = this.#base?.tail.attends === attends ? this.#base : undefined;
    if (base !== undefined && sharedPrefix(base.tokens, tokens) >= bestShared) return this.#copyOf(base.tail);
    if (best === undefined || bestShared < Math.min(sharedTokensMin, best.tokens.length / 2)) return create();
    if (bestShared >= best.tokens.length / 2) {
      const taken = best;
      this.#kept = this.#kept.filter((kept) => kept !== taken);
      return taken.tail;
    }
    return this.#copyOf(best.tail);
  }

  /** Keeps a tail that holds what every prompt begins with: new prompts start from copies of it. */
  setBase(tail: Tail, tokens: Uint32Array): void {
    if (this.#closed) return this.drop(tail);
    this.dropBase();
    this.#base = { tail, tokens };
  }

  /** Whether there is a base for what attends to `attends`. */
  hasBase(attends: string): boolean {
    return this.#base?.tail.attends === attends;
  }

  dropBase(): void {
    if (this.#base !== undefined) this.drop(this.#base.tail);
    this.#base = undefined;
  }

  /** `tokens`: what the sequence holds now, as far as it is known. */
  release(tail: Tail, tokens: Uint32Array): void {
    if (this.#closed) return this.drop(tail);
    this.#kept.unshift({ tail, tokens });
    for (const { tail: old } of this.#kept.splice(this.#tailsMax)) this.drop(old);
  }

  drop(tail: Tail): void {
    free(this.#scheduler, tail.sequence);
  }

  /** Frees what is kept, and from now on whatever is given back. */
  close(): void {
    this.#closed = true;
    this.keepOnly(() => false);
    this.dropBase();
  }

  /** Frees every kept tail that is not wanted any more; the base is not among them. */
  keepOnly(wanted: (tail: Tail) => boolean): void {
    const old = this.#kept.filter(({ tail }) => !wanted(tail));
    this.#kept = this.#kept.filter(({ tail }) => wanted(tail));
    for (const { tail } of old) this.drop(tail);
  }

  async #copyOf(tail: Tail): Promise<Tail> {
    return { ...tail, sequence: await this.#scheduler.upkeep(() => tail.sequence.fork()) };
  }
}

/** Frees a sequence when its turn comes. A scheduler that is closing refuses; then the model frees all at once. */
export function free(scheduler: Scheduler, sequence: NativeSequence): void {
  scheduler.upkeep(() => sequence.dispose()).catch(() => undefined);
}

export function sharedPrefix(a: Uint32Array, b: Uint32Array): number {
  const length = Math.min(a.length, b.length);
  let at = 0;
  while (at < length && a[at] === b[at]) at++;
  return at;
}
