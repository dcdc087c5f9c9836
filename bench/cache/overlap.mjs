// How selections move from one token to the next on real code: a file that is being written over 32 k tokens of others.
import { greedy, openContext, openModel, selections } from "../lib/context.mjs";
import { modelFile } from "../lib/product.mjs";
import { filesOf } from "./repositories.mjs";

const steps = 512;
/** With the published constants, of 64 blocks at least 49 stay: sink, window and what no query chooses. */
const boundBlocks = 49;
const changesMax = 15;

export async function run(figures, { model: id, threads }) {
  const model = await openModel(await modelFile(id), { threads });
  const context = await openContext(model, { name: "code-32k", files: filesOf("32k") });
  const { sequence } = await context.tail();
  await sequence.select(selections.nosa);
  const code = (await model.encode(filesOf("32k", 5)[0].text)).slice(0, steps + 64);
  await sequence.setTokens(code.slice(0, 64));
  const seen = new Moves(contextBlocks(context));
  for (let at = 64; at < code.length; at += 32) {
    const teacher = code.slice(at, at + 32);
    const result = await sequence.decode({
      steps: teacher.length,
      sampling: greedy,
      stopIds: [],
      teacher,
      selections: true,
    });
    for (const step of result.steps) seen.add(step.selections);
  }
  const all = seen.summary();
  figures.add(`${id}: blocks that a head selects, least`, all.sizeMin, "blocks");
  figures.add(`${id}: overlap of consecutive selections, mean (the paper: 0.944)`, all.overlap, "of 1");
  figures.add(`${id}: overlap, least, in blocks`, all.keptMin, "blocks", { goal: boundBlocks });
  figures.add(`${id}: blocks that change in a step and head, most`, all.changesMax, "blocks", {
    goal: changesMax,
    better: "lower",
  });
  figures.add(`${id}: misses a step and head with 64 slots (the paper: 3.58)`, all.misses64, "blocks");
  figures.add(`${id}: misses a step and head with 128 slots (the paper: 0.71)`, all.misses128, "blocks");
  await sequence.dispose();
  await context.dispose();
  await model.dispose();
  return { steps: seen.steps, layers: seen.heads(model.info.kvHeads) };
}

/** Blocks of everything that a tail attends to. */
export function contextBlocks({ headerTokens, plans }) {
  return Math.ceil(headerTokens / 64) + plans.reduce((sum, plan) => sum + Math.ceil(plan.tokens.length / 64), 0);
}

/**
 * Counts per layer and KV head how selections change. Blocks from `contextBlocks` on are the tail's own: they are part of a selection, but are never
 * missing where they are made.
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

  summary() {
    const heads = this.#heads.filter((head) => head.moves > 0);
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
      this.moves += 1;
      this.overlap += kept / now.size;
      const ofContext = blocks.filter((block) => block < this.#contextBlocks);
      // With 64 slots what was selected last is all that is there.
      this.misses64 += ofContext.filter((block) => !this.#last.has(block)).length;
      this.misses128 += ofContext.filter((block) => !this.#slots.has(block)).length;
      this.keptMin = Math.min(this.keptMin, kept);
      this.changesMax = Math.max(this.changesMax, now.size - kept);
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
