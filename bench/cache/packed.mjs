// What compressed keys of 8 bits change: the same code written over 128 k tokens, blocks chosen by them and by the exact ones.
import { greedy, openContext, openModel, selections } from "../lib/context.mjs";
import { modelFile } from "../lib/product.mjs";
import { filesOf, nameOf } from "./repositories.mjs";

const steps = 256;
// As many tokens of the tail as are there before the first choice.
const warm = 64;
const { totalBlocks, queryBlocks } = selections.nosa;
// One of those that the published constant counts is the window's last.
const picks = queryBlocks - 1;

export async function run(figures, { models, threads }) {
  const raw = [];
  for (const id of models) {
    const model = await openModel(await modelFile(id), { threads });
    const context = await openContext(model, { name: nameOf("128k"), files: filesOf("128k") });
    const code = (await model.encode(filesOf("32k", 5)[0].text)).slice(0, steps + warm);
    const ways = [];
    for (const exactKeys of [false, true]) {
      const { sequence } = await context.tail();
      await sequence.select({ ...selections.nosa, exactKeys });
      await sequence.setTokens(code.slice(0, warm));
      ways.push({ sequence, steps: [] });
    }
    for (let at = warm; at < code.length; at += 32) {
      const teacher = code.slice(at, at + 32);
      for (const way of ways) {
        const answer = await way.sequence.decode({
          steps: teacher.length,
          sampling: greedy,
          stopIds: [],
          teacher,
          selections: true,
        });
        way.steps.push(...answer.steps);
      }
    }
    const sums = { heads: 0, kept: 0, byPacked: 0, byExact: 0, apart: 0 };
    ways[0].steps.forEach((step, index) => {
      const other = ways[1].steps[index];
      step.selections.forEach((blocks, head) => {
        const chosen = new Set(other.selections[head]);
        sums.heads += 1;
        sums.kept += blocks.filter((block) => chosen.has(block)).length / blocks.length;
      });
      sums.byPacked += step.logprob;
      sums.byExact += other.logprob;
      sums.apart += Math.abs(step.logprob - other.logprob);
    });
    const n = ways[0].steps.length;
    const changed = (1 - sums.kept / sums.heads) * totalBlocks;
    figures.add(`${id}: picks over 128k that packed keys change, of ${picks}`, changed, "blocks", { better: "lower" });
    figures.add(`${id}: log-probability of a token of real code, exact keys`, sums.byExact / n, "nats");
    figures.add(`${id}: the same, packed keys`, sums.byPacked / n, "nats");
    figures.add(`${id}: distance of the two, mean`, sums.apart / n, "nats", { better: "lower" });
    raw.push({ model: id, steps: n, ...sums });
    for (const { sequence } of ways) await sequence.dispose();
    await context.dispose();
    await model.dispose();
  }
  return raw;
}
