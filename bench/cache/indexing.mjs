// "Index Repository" of 32 k and 128 k tokens in segments, by the engine with everything in it, against llama.cpp's prompt processing of as many
// tokens. llama.cpp is measured at positions up to 32 k; its cost of a token beyond is extrapolated from 16 k and 32 k.
import { modelFile, startEngine } from "../lib/product.mjs";
import { llamaCurve } from "./llamaCurve.mjs";
import { freshFolder, keptHome, repository } from "./repositories.mjs";
import { writeRepository } from "../lib/corpus.mjs";

const goals = { "32k": 3, "128k": 10 };

export async function run(figures, { models, threads, llamaTokens, repeat }) {
  const raw = [];
  for (const model of models) {
    const curve = await llamaCurve(await modelFile(model), { threads, tokens: llamaTokens, repeat });
    figures.add(`${model}: llama.cpp's cost of a token, distance from a line`, 100 * curve.bend, "%");
    for (const size of Object.keys(goals)) {
      const summary = await index(model, threads, size);
      const llama = curve.prefillOf(summary.tokensRead) / 1000;
      const said = size === "128k" ? ", llama.cpp extrapolated" : "";
      figures.add(`${model}: indexing ${size}, nosa`, summary.tokensRead / summary.seconds, "tokens/s");
      figures.add(`${model}: indexing ${size}, llama.cpp${said}`, summary.tokensRead / llama, "tokens/s");
      figures.add(`${model}: indexing ${size} in segments over llama.cpp`, llama / summary.seconds, "x", {
        goal: goals[size],
      });
      raw.push({ model, size, summary, llamaSeconds: llama, curve: curve.points, llamaPromptIsReal: curve.isReal });
    }
  }
  return raw;
}

/** Reads the repository anew, and leaves its context for other parts. */
async function index(model, threads, size) {
  const engine = await startEngine({ model, threads, home: keptHome() });
  try {
    // A repository of one line first, so that loading the model is not in the time.
    const tiny = freshFolder("tiny");
    writeRepository(tiny, [{ path: "one.js", text: "export const one = 1;\n" }]);
    await engine.request("nosa/index", { root: tiny, editorExcludes: {} });
    await engine.request("nosa/forget", { root: tiny });
    const root = repository(size);
    await engine.request("nosa/forget", { root });
    return await engine.request("nosa/index", { root, editorExcludes: {} });
  } finally {
    await engine.stop();
  }
}
