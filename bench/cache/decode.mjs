// Decoding over 4 k, 32 k and 128 k tokens in segments with the product's selection, against llama.cpp over as many in the same run.
import { median } from "../lib/figures.mjs";
import { finish, greedy, openContext, openModel, selections } from "../lib/context.mjs";
import { modelFile } from "../lib/product.mjs";
import { llamaCurve } from "./llamaCurve.mjs";
import { filesOf, nameOf } from "./repositories.mjs";

const sizes = ["4k", "32k", "128k"];
const stepsARound = 64;
const goals = {
  "smollm2-135m-instruct": { "32k": 3, "128k": 8 },
  "qwen2.5-coder-0.5b-instruct": { "32k": 2.5, "128k": 6 },
};

export async function run(figures, { models, threads, llamaTokens, repeat }) {
  const raw = [];
  for (const id of models) {
    const file = await modelFile(id);
    const model = await openModel(file, { threads });
    const tails = [];
    for (const size of sizes) tails.push(await openTail(model, size));
    // A round of ours after each measurement of llama.cpp.
    const curve = await llamaCurve(file, {
      threads,
      tokens: llamaTokens,
      repeat,
      between: async () => {
        for (const tail of tails) tail.rounds.push(await decode(tail.sequence));
      },
    });
    const times = Object.fromEntries(
      tails.map(({ size, rounds }) => [size, median(rounds.map(({ millis }) => millis))]),
    );
    for (const tail of tails) {
      const { attended, total } = tail.rounds.at(-1);
      figures.add(
        `${id}: decode over ${tail.size}, nosa (${attended} of ${total} blocks)`,
        1000 / times[tail.size],
        "tokens/s",
      );
      raw.push({ model: id, size: tail.size, tokens: tail.tokens, coldMillis: tail.cold, rounds: tail.rounds });
    }
    for (const size of ["32k", "128k"]) {
      const tokens = tails.find((tail) => tail.size === size).tokens;
      const llama = curve.decodeAt(tokens);
      const said = size === "128k" ? ", extrapolated" : "";
      figures.add(`${id}: decode over ${size}, llama.cpp${said}`, 1000 / llama, "tokens/s");
      figures.add(`${id}: decode over ${size}, over llama.cpp`, llama / times[size], "x", {
        goal: goals[id]?.[size] ?? null,
      });
    }
    figures.add(`${id}: a step over 128 k against one over 4 k`, times["128k"] / times["4k"], "x", {
      goal: 1.5,
      better: "lower",
    });
    raw.push({ model: id, llama: curve.points, llamaPromptIsReal: curve.isReal });
    for (const { context, sequence } of tails) {
      await sequence.dispose();
      await context.dispose();
    }
    await model.dispose();
  }
  return raw;
}

async function openTail(model, size) {
  const context = await openContext(model, { name: nameOf(size), files: filesOf(size) });
  const { sequence } = await context.tail();
  await sequence.select(selections.nosa);
  const { tokens } = await model.text.chat({
    messages: [{ role: "user", content: "Explain in detail how this code handles errors, file by file." }],
    tokensMax: 4_096,
  });
  await sequence.setTokens(tokens);
  await finish(sequence);
  // The first step brings blocks and code in: told apart.
  const start = performance.now();
  await sequence.decode({ steps: 1, sampling: greedy, stopIds: [] });
  const cold = performance.now() - start;
  return { size, context, sequence, tokens: context.tokens, cold, rounds: [] };
}

async function decode(sequence) {
  const start = performance.now();
  let last;
  for (let steps = 0; steps < stepsARound; steps += 8)
    last = await sequence.decode({ steps: 8, sampling: greedy, stopIds: [] });
  const millis = (performance.now() - start) / stepsARound;
  return { millis, attended: last.attendedBlocks, total: last.totalBlocks, blocksRead: last.blocksRead };
}
