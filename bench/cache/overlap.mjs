// How selections move from one token to the next on real code: a file that is being written over 32 k tokens of others.
import { greedy, openContext, openModel, selections } from "../lib/context.mjs";
import { contextBlocks, Moves } from "../lib/moves.mjs";
import { modelFile } from "../lib/product.mjs";
import { filesOf, nameOf } from "./repositories.mjs";

const steps = 512;
/** With the published constants, of 64 blocks at least 49 stay: sink, window and what no query chooses. */
const boundBlocks = 49;
const changesMax = 15;

export async function run(figures, { model: id, threads }) {
  const model = await openModel(await modelFile(id), { threads });
  const context = await openContext(model, { name: nameOf("32k"), files: filesOf("32k") });
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
  if (!seen.counted) throw new Error("Every block was attended to: the context is too small to count anything.");
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
