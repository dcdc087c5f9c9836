// The engine as the extension meets it, under Node and without an editor: a repository of 128 k tokens is read, asked about, and typed in, over the protocol.
// On a machine with a GPU that the engine takes, this is the whole of it there.
//
//   --size S       of the repository (128k; 4k and 32k are to try it, 200k and 500k are more than a GPU has room for at first)
//   --chats N      questions (12)              --edits N   bursts of typing with a completion each (200)
//   --pace X       share of a person's pauses that is kept between keys (1); with less the engine has less time to work ahead
//   --model ID     a known model (the default one), or the path of a file
//   --shape 8b     random weights of the shape of a model of 8B instead, with that model's vocabulary
//   --threads N    (the number of cores)
//   --results DIR  where every sample is kept as JSON (bench/results/engine for the whole; nowhere for less)
//
// Times run from a request to its answer as a client sees them; what a client adds, such as waiting for a pause in the typing, is not in them.
import { mkdirSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { mostAnonymousBytes } from "./cache/memory.mjs";
import { filesOf, freshFolder, repository } from "./cache/repositories.mjs";
import { stretches } from "./editor/trace.mjs";
import { writeShapedModel } from "./engine/shapedModel.mjs";
import { typeInto } from "./engine/typist.mjs";
import { corpusSources } from "./lib/corpus.mjs";
import { mean, median, percentile } from "./lib/figures.mjs";
import { modelFile, product, startEngine } from "./lib/product.mjs";
import { definitions, question as questionOf } from "./lookups/definitions.mjs";

/** What nobody names: the answer is found by what it is about. */
const general = [
  "How is a request that was aborted cleaned up?",
  "Where are the headers of a response parsed?",
  "What happens when a connection is closed by the other side?",
  "How are timeouts implemented?",
];
/** Edits before the first that counts. */
const warmEdits = 8;
const answerTokens = 48;
const keptEvery = 25;
/** On a GPU; without one the figures of `bench -- editor` count. */
const goals = { firstTokenMs: 300, missP50: 150, missP95: 400 };

export async function run(figures, options) {
  const size = String(options.size ?? "128k");
  const known = String(options.model ?? "qwen2.5-coder-0.5b-instruct");
  const shaped = options.shape === undefined ? undefined : path.join(freshFolder("engine-shaped"), "8b.gguf");
  if (shaped !== undefined) {
    const weights = writeShapedModel(shaped, await modelFile(known));
    figures.add("random weights of the 8B shape, in Q4_0", weights / 1e9, "10^9");
  }
  const model = shaped ?? known;
  const threads = Number(options.threads ?? os.cpus().length);
  const chats = Number(options.chats ?? 12);
  const edits = Number(options.edits ?? 200);
  const pace = Number(options.pace ?? 1);
  // A trial must not write over the whole.
  const isWhole = shaped === undefined && size === "128k" && edits >= 200 && chats >= 12;
  const results =
    options.results ?? (isWhole ? fileURLToPath(new URL("./results/engine/", import.meta.url)) : undefined);
  const root = repository(size);
  const files = filesOf(size);
  const engine = await startEngine({
    model,
    threads,
    home: freshFolder("engine"),
    // As it is delivered; the other benchmarks have completions of their own length.
    changes: { contextTokensMax: 1_048_576, completions: product.defaultSettings.completions },
  });
  const raw = { model: shaped === undefined ? known : "random weights, 8B shape", threads, size, pace };
  const keep = () => results !== undefined && write(String(results), figures, raw);
  try {
    // The model and its buffers, before there is anything to read.
    await ask(engine, "", "Hello!");
    raw.device = deviceOf(await engine.request("nosa/status", {}), shaped === undefined);
    console.log(`${raw.device.name}. ${raw.device.note}`);
    const { most } = await mostAnonymousBytes(engine.pid, async () => {
      raw.index = await engine.request("nosa/index", { root, editorExcludes: {} });
      reportIndex(figures, raw.index);
      keep();
      raw.chats = await chat(engine, root, files, chats);
      reportChats(figures, raw.chats, raw.device);
      keep();
      const places = (seed) => stretches(files, seed);
      await typeInto(engine, { root, files, stretches: places("engine before"), edits: warmEdits, pace });
      // A run that is stopped leaves what it has.
      const onSample = (samples) => {
        raw.typing = samples;
        if (samples.length % keptEvery === 0) keep();
      };
      await typeInto(engine, { root, files, stretches: places("engine"), edits, pace, onSample });
      reportTyping(figures, raw.typing, raw.device);
    });
    raw.status = await engine.request("nosa/status", {});
    const { deviceBytes } = raw.status.memory;
    figures.add("anonymous memory of the engine, most", most / 1e9, "GB");
    if (deviceBytes !== undefined) figures.add("memory of the GPU", deviceBytes / 1e9, "GB");
  } finally {
    await engine.stop();
    keep();
  }
}

function write(folder, figures, raw) {
  mkdirSync(folder, { recursive: true });
  const machine = `${os.cpus()[0].model}, ${raw.threads} threads`;
  const code = corpusSources().map(({ name, version, license }) => `${name} ${version} (${license})`);
  const record = { date: new Date().toISOString().slice(0, 10), machine, code, figures: figures.all, raw };
  // Where the folders lay on this machine tells nobody else anything.
  const text = JSON.stringify(record, (key, value) => (key === "root" ? undefined : value), 1);
  writeFileSync(path.join(folder, "engine.json"), `${text}\n`);
}

/** Random weights are timed for comparison alone: no goal is set for them. */
function deviceOf({ device, deviceNote = "" }, isRealModel) {
  return { name: device, note: deviceNote, hasGoals: deviceNote === "" && isRealModel };
}

/** Some that name nothing, the rest that ask for a definition by its name. */
async function chat(engine, root, files, count) {
  const all = definitions(files);
  const named = Array.from({ length: count }, (_, at) => all[Math.floor((at * all.length) / count)]).map(
    (definition) => questionOf(definition).question,
  );
  const questions = [...general, ...named].slice(0, count);
  const answers = [];
  for (const question of questions) answers.push(await ask(engine, root, question));
  return answers;
}

/** The answer, and milliseconds until its first words were here. */
async function ask(engine, root, question) {
  const partialResultToken = `chat ${performance.now()}`;
  let firstMs;
  const startMs = performance.now();
  const listening = engine.onProgress(partialResultToken, (delta) => {
    if (delta.kind === "text") firstMs ??= performance.now() - startMs;
  });
  const { text, usage } = await engine.request("nosa/chat", {
    root,
    messages: [{ role: "user", content: question }],
    tokensMax: answerTokens,
    temperature: 0,
    seed: 1,
    partialResultToken,
  });
  listening.dispose();
  return { question, text, firstMs, allMs: performance.now() - startMs, usage };
}

function reportIndex(figures, { files, tokens, tokensRead, seconds }) {
  figures.add(`reading ${files} files, from nothing to saved`, seconds, "s");
  figures.add("tokens read", tokensRead, "tokens");
  figures.add("reading", tokens / seconds, "tokens/s");
}

function reportChats(figures, chats, { hasGoals }) {
  const waits = chats.map(({ firstMs }) => firstMs);
  const usages = chats.map(({ usage }) => usage);
  const goal = { goal: hasGoals ? goals.firstTokenMs : null, better: "lower" };
  figures.add(`chat: first words, median of ${waits.length}`, median(waits), "ms", goal);
  figures.add(`chat: first words, longest of ${waits.length}`, Math.max(...waits), "ms", goal);
  const decode = usages.map((usage) => (1000 * usage.answerTokens) / usage.millis.decode);
  figures.add("chat: writing, median", median(decode), "tokens/s");
  reportAttended(
    figures,
    "chat",
    usages.map(({ attendedBlocks }) => attendedBlocks),
    usages.at(-1).totalBlocks,
  );
  reportFetched(figures, "chat", usages);
}

function reportTyping(figures, samples, { hasGoals }) {
  const offered = samples.filter(({ stats }) => stats !== undefined);
  const misses = offered.filter(({ stats }) => !stats.cached);
  const hits = offered.filter(({ stats }) => stats.cached);
  // Asked for, computed and thrown away, or not worth asking.
  const empty = samples.filter(({ stats }) => stats === undefined);
  const add = (name, group, share, goal = null) => {
    if (group.length === 0) return;
    const label = `ghost text, ${name} (${group.length}), p${100 * share}`;
    figures.add(
      label,
      percentile(
        group.map(({ ms }) => ms),
        share,
      ),
      "ms",
      { goal: hasGoals ? goal : null, better: "lower" },
    );
  };
  add("written by the model", misses, 0.5, goals.missP50);
  add("written by the model", misses, 0.95, goals.missP95);
  add("there already", hits, 0.5);
  add("there already", hits, 0.95);
  add("nothing offered", empty, 0.5);
  add("nothing offered", empty, 0.95);
  add("all", samples, 0.5);
  add("all", samples, 0.95);
  if (misses.length === 0) return;
  const stats = misses.map((sample) => sample.stats);
  figures.add("ghost text: tokens of an offer, median", median(stats.map(({ tokens }) => tokens)), "tokens");
  figures.add(
    "ghost text: tokens of the prompt read, median",
    median(stats.map((each) => each.promptTokensRead)),
    "tokens",
  );
  figures.add(
    `ghost text: tokens attended to (of ${stats[0].contextTokens} of the repository), mean`,
    mean(stats.map(({ attendedTokens }) => attendedTokens)),
    "tokens",
  );
  reportFetched(figures, "ghost text", stats);
}

function reportAttended(figures, where, attended, total) {
  figures.add(`${where}: blocks attended to (of ${total}), mean`, mean(attended), "blocks", {
    goal: total - 1,
    better: "lower",
  });
}

/** Blocks of one layer and KV head: from disk to memory, and from memory to a GPU. */
function reportFetched(figures, where, usages) {
  figures.add(`${where}: blocks read from disk, mean`, mean(usages.map(({ blocksRead }) => blocksRead)), "blocks");
  const fetched = usages.map(({ blocksFetched = 0 }) => blocksFetched);
  figures.add(`${where}: blocks fetched from host memory by the GPU, mean`, mean(fetched), "blocks");
}
