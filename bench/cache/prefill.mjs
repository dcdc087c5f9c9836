// One causal sequence, no segments: prefill with nosa's selection against our own dense prefill, side by side.
import { openModel, selections } from "../lib/context.mjs";
import { joinedText } from "../lib/corpus.mjs";
import { modelFile } from "../lib/product.mjs";
import { filesOf, shrunk } from "./repositories.mjs";

const pieces = 16;
const goals = { 8: ["16k", 1.5], 16: ["32k", 2.5] };

export async function run(figures, { model: id, threads }) {
  const model = await openModel(await modelFile(id), { threads });
  const tokens = (await model.encode(joinedText(filesOf("128k")))).slice(0, shrunk(32_768));
  const runs = { nosa: { millis: 0 }, full: { millis: 0 } };
  for (const [policy, state] of Object.entries(runs)) {
    state.sequence = await model.native.createSequence({ basePosition: 0, attends: [] });
    await state.sequence.select({ ...selections.nosa, policy });
    await state.sequence.setTokens(tokens);
  }
  const raw = [];
  for (let piece = 1; piece <= pieces; piece += 1) {
    const done = Math.floor((tokens.length * piece) / pieces);
    for (const state of Object.values(runs)) state.millis += await advance(state.sequence, done);
    raw.push({ tokens: done, nosa: runs.nosa.millis, full: runs.full.millis });
    if (goals[piece] === undefined) continue;
    const [size, goal] = goals[piece];
    figures.add(`${id}: sequence prefill of ${size}, nosa`, (done / runs.nosa.millis) * 1000, "tokens/s");
    figures.add(`${id}: sequence prefill of ${size}, dense`, (done / runs.full.millis) * 1000, "tokens/s");
    figures.add(`${id}: sequence prefill of ${size}, over dense`, runs.full.millis / runs.nosa.millis, "x", { goal });
  }
  for (const { sequence } of Object.values(runs)) await sequence.dispose();
  await model.dispose();
  return raw;
}

/** Milliseconds until `end` tokens are computed. */
async function advance(sequence, end) {
  const start = performance.now();
  let { computed } = await sequence.prefill({ tokensMax: 64 });
  while (computed < end) ({ computed } = await sequence.prefill({ tokensMax: end - computed }));
  return performance.now() - start;
}
