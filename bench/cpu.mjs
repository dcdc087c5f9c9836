// Our engine against llama.cpp on this machine's processor: the same model file, the same threads, alternating in one run;
// and how quickly the engine answers while it works.
//
//   --rounds N     pairs of measurements of each figure (3)
//   --threads N    threads of both (the number of cores)
//   --models A,B   ids of known models, or paths of GGUF files (the quick one and the default one)
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { packageSources } from "./lib/code.mjs";
import { median, percentile } from "./lib/figures.mjs";
import { openLlama } from "./lib/llama.mjs";
import { openNosa } from "./lib/nosa.mjs";
import { modelFile, startEngine } from "./lib/product.mjs";

const promptTokens = 512;
const decodeSteps = 64;
const repositoryTokens = 16 * 1024;

export async function run(figures, options) {
  const rounds = Number(options.rounds ?? 3);
  const threads = Number(options.threads ?? os.cpus().length);
  const models = String(options.models ?? "smollm2-135m-instruct,qwen2.5-coder-0.5b-instruct").split(",");
  console.log(`${os.cpus()[0].model}, ${threads} threads, ${rounds} alternating rounds, medians`);
  for (const model of models) {
    const file = path.isAbsolute(model) ? model : await modelFile(model);
    await compareSpeed(figures, { model, file, rounds, threads });
  }
  const model = models[models.length - 1];
  const file = path.isAbsolute(model) ? model : await modelFile(model);
  await compareIndexing(figures, { model, file, threads, rounds: 1 });
  await measureAnswering(figures, { model, threads });
}

/** Prefill of 512 tokens and decoding after them. */
async function compareSpeed(figures, { model, file, rounds, threads }) {
  const llama = await openLlama(file, { threads, contextTokens: 1024 });
  const nosa = await openNosa(file, { threads });
  const tokens = llama.tokenize(codeText()).slice(0, promptTokens + 1);
  const prompt = tokens.slice(0, promptTokens);
  const times = { llama: { prefill: [], decode: [] }, nosa: { prefill: [], decode: [] } };
  // One round for nothing: files come into memory, code and threads warm up.
  for (let round = -1; round < rounds; round += 1) {
    for (const [name, engine] of [
      ["llama", llama],
      ["nosa", nosa],
    ]) {
      const prefill = await engine.prefill(prompt);
      const decode = await engine.decode(tokens[promptTokens], decodeSteps);
      if (round < 0) continue;
      times[name].prefill.push(prefill);
      times[name].decode.push(decode);
    }
  }
  await llama.dispose();
  await nosa.dispose();
  const name = path.basename(model);
  const ratio = (kind) => median(times.llama[kind].map((ms, i) => ms / times.nosa[kind][i]));
  figures.add(
    `${name}: prefill of ${promptTokens}, nosa`,
    (promptTokens / median(times.nosa.prefill)) * 1000,
    "tokens/s",
  );
  figures.add(
    `${name}: prefill of ${promptTokens}, llama.cpp`,
    (promptTokens / median(times.llama.prefill)) * 1000,
    "tokens/s",
  );
  figures.add(`${name}: prefill of ${promptTokens}, ratio`, ratio("prefill"), "x", { goal: 1 });
  figures.add(`${name}: decode at ${promptTokens}, nosa`, 1000 / median(times.nosa.decode), "tokens/s");
  figures.add(`${name}: decode at ${promptTokens}, llama.cpp`, 1000 / median(times.llama.decode), "tokens/s");
  figures.add(`${name}: decode at ${promptTokens}, ratio`, ratio("decode"), "x", { goal: 1 });
}

/** "Index Repository", everything in it, against llama.cpp's prompt processing of as many tokens of the same text. */
async function compareIndexing(figures, { model, file, rounds, threads }) {
  const llama = await openLlama(file, { threads, contextTokens: repositoryTokens + 4096 });
  const root = codeRepository((text) => llama.tokenize(text).length);
  const ratios = [];
  let speed = 0;
  for (let round = 0; round < rounds; round += 1) {
    const engine = await startEngine({ model, threads });
    // A repository of one line first, so that loading the model is not in the time.
    const tiny = mkdtempSync(path.join(os.tmpdir(), "nosa-bench-tiny-"));
    writeFileSync(path.join(tiny, "one.js"), "export const one = 1;\n");
    await engine.request("nosa/index", { root: tiny, editorExcludes: {} });
    const summary = await engine.request("nosa/index", { root, editorExcludes: {} });
    await engine.stop();
    const tokens = llama.tokenize(codeText()).slice(0, summary.tokensRead);
    const millis = await llama.prefill(tokens);
    speed = summary.tokensRead / summary.seconds;
    ratios.push(speed / (tokens.length / (millis / 1000)));
    if (round === 0) figures.add("indexing: tokens of the repository", summary.tokensRead, "tokens");
  }
  await llama.dispose();
  figures.add("indexing in segments, nosa", speed, "tokens/s");
  figures.add("indexing in segments over llama.cpp's prompt processing, ratio", median(ratios), "x", { goal: 2 });
}

/** Round trips through the socket, idle and while indexing; and from a cancel to an idle engine. */
async function measureAnswering(figures, { model, threads }) {
  const engine = await startEngine({ model, threads });
  const root = codeRepository((text) => text.length / 3.4);
  const roundTrip = async () => {
    const start = performance.now();
    await engine.request("nosa/status", {});
    return performance.now() - start;
  };
  await roundTrip();
  const idle = [];
  for (let i = 0; i < 500; i += 1) idle.push(await roundTrip());
  figures.add("round trip through the socket, idle, p95", percentile(idle, 0.95), "ms", { goal: 5, better: "lower" });

  const indexing = engine.cancellation();
  const indexed = engine.request("nosa/index", { root, editorExcludes: {} }, indexing.token).catch(() => undefined);
  await until(engine, (status) => status.activity.kind === "indexing");
  const busy = [];
  for (let i = 0; i < 200; i += 1) {
    busy.push(await roundTrip());
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  // Reported, not judged: with all cores computing, most of it is the wait for a core.
  figures.add("round trip while indexing, p95", percentile(busy, 0.95), "ms");
  figures.add("round trip while indexing, longest: the engine's JS thread was held up", Math.max(...busy), "ms", {
    goal: 20,
    better: "lower",
  });

  const cancels = [];
  const start = performance.now();
  indexing.cancel();
  await indexed;
  cancels.push(performance.now() - start);
  for (let i = 0; i < 5; i += 1) cancels.push(await cancelChat(engine, root, `bench-${i}`));
  figures.add("from cancel to idle, longest of 6", Math.max(...cancels), "ms", { goal: 100, better: "lower" });
  await engine.stop();
}

async function cancelChat(engine, root, token) {
  const cancellation = engine.cancellation();
  const first = new Promise((resolve) => {
    engine.onProgress(token, (delta) => delta.kind === "text" && resolve());
  });
  const answer = engine
    .request(
      "nosa/chat",
      {
        root,
        messages: [{ role: "user", content: "Explain in detail how messages are read and written." }],
        tokensMax: 400,
        temperature: 0,
        seed: 1,
        partialResultToken: token,
      },
      cancellation.token,
    )
    .catch(() => undefined);
  await Promise.race([first, answer]);
  const start = performance.now();
  cancellation.cancel();
  await answer;
  await until(engine, (status) => status.activity.kind === "idle");
  return performance.now() - start;
}

async function until(engine, holds) {
  for (let tries = 0; tries < 5000; tries += 1) {
    if (holds(await engine.request("nosa/status", {}))) return;
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  throw new Error("The engine did not come to the state that was waited for.");
}

function codeText() {
  return packageSources()
    .map(({ text }) => text)
    .join("\n");
}

/** A folder with whole files of real code, as many as fit some 16 k tokens. */
function codeRepository(countTokens) {
  const root = mkdtempSync(path.join(os.tmpdir(), "nosa-bench-repository-"));
  let left = repositoryTokens;
  for (const { path: name, text } of packageSources()) {
    const tokens = countTokens(text);
    if (tokens > left) continue;
    left -= tokens;
    const file = path.join(root, name);
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, text);
  }
  return root;
}
