// How the selections of a head move from one step to the next: overlap, and what is missing from slots of the device.

/** Blocks of everything that a tail attends to. */
export function contextBlocks({ headerTokens, plans }) {
  return Math.ceil(headerTokens / 64) + plans.reduce((sum, plan) => sum + Math.ceil(plan.tokens.length / 64), 0);
}

/**
 * Counts per layer and KV head how selections change. Blocks from `contextBlocks` on are the tail's own: they are part of a selection, but are never
 * missing where they are made. The block that the tail has just begun was nowhere before: the bounds (`keptMin`, `changesMax`) are about the others,
 * whose number the window lessens by one at such a step.
 */
export class Moves {
  #heads = [];
  #contextBlocks;
  steps = 0;

  constructor(contextBlocks) {
    this.#contextBlocks = contextBlocks;
  }

  /** `selections`: for each layer and KV head ascending block indices; an empty list stands for all blocks and is not counted. */
  add(selections) {
    this.steps += 1;
    selections.forEach((blocks, head) => {
      if (blocks.length > 0) (this.#heads[head] ??= new Head(this.#contextBlocks)).add(blocks);
    });
  }

  /** Whether any head had to choose. */
  get counted() {
    return this.#heads.some((head) => head !== undefined && head.moves > 0);
  }

  summary() {
    const heads = this.#heads.filter((head) => head !== undefined && head.moves > 0);
    const mean = (of) => heads.reduce((sum, head) => sum + of(head), 0) / heads.length;
    return {
      overlap: mean((head) => head.overlap / head.moves),
      misses64: mean((head) => head.misses64 / head.moves),
      misses128: mean((head) => head.misses128 / head.moves),
      keptMin: Math.min(...heads.map((head) => head.keptMin)),
      changesMax: Math.max(...heads.map((head) => head.changesMax)),
      sizeMin: Math.min(...heads.map((head) => head.sizeMin)),
    };
  }

  /** `[{overlap, misses64, misses128}]` for each layer. */
  heads(kvHeads) {
    const layers = [];
    this.#heads.forEach((head, index) => {
      const layer = (layers[Math.floor(index / kvHeads)] ??= { overlap: 0, misses64: 0, misses128: 0 });
      layer.overlap += head.overlap / head.moves / kvHeads;
      layer.misses64 += head.misses64 / head.moves / kvHeads;
      layer.misses128 += head.misses128 / head.moves / kvHeads;
    });
    return layers;
  }
}

const slots = 128;

class Head {
  moves = 0;
  overlap = 0;
  misses64 = 0;
  misses128 = 0;
  keptMin = Infinity;
  changesMax = 0;
  sizeMin = Infinity;
  #last = new Set();
  /** Blocks in 128 slots, least recently used first. */
  #slots = new Set();
  #contextBlocks;

  constructor(contextBlocks) {
    this.#contextBlocks = contextBlocks;
  }

  add(blocks) {
    const now = new Set(blocks);
    this.sizeMin = Math.min(this.sizeMin, now.size);
    if (this.#last.size > 0) {
      const kept = blocks.filter((block) => this.#last.has(block)).length;
      const lastOfTail = Math.max(...this.#last);
      const begun = blocks.filter((block) => block >= this.#contextBlocks && block > lastOfTail).length;
      this.moves += 1;
      this.overlap += kept / now.size;
      const ofContext = blocks.filter((block) => block < this.#contextBlocks);
      // With 64 slots what was selected last is all that is there.
      this.misses64 += ofContext.filter((block) => !this.#last.has(block)).length;
      this.misses128 += ofContext.filter((block) => !this.#slots.has(block)).length;
      this.keptMin = Math.min(this.keptMin, kept + begun);
      this.changesMax = Math.max(this.changesMax, now.size - kept - begun);
    }
    for (const block of blocks) {
      if (block >= this.#contextBlocks) continue;
      this.#slots.delete(block);
      this.#slots.add(block);
    }
    for (const block of this.#slots) {
      if (this.#slots.size <= slots) break;
      this.#slots.delete(block);
    }
    this.#last = now;
  }
}
