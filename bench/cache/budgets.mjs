// A 128 k context under a memory budget of 256 MB answers as it does with all of it in memory; what it takes, and what it reads from disk.
import { startEngine } from "../lib/product.mjs";
import { lookupSet } from "../lookups/set.mjs";
import { anonymousBytes, mostAnonymousBytes } from "./memory.mjs";
import { keptHome, repository } from "./repositories.mjs";

const asked = 6;
const budgetGigabytes = 0.256;
const plentyGigabytes = 8;

export async function run(figures, { model, threads }) {
  const root = repository("128k");
  const [{ questions }] = lookupSet("128k", asked);
  const plenty = await answersUnder(plentyGigabytes, { model, threads, root, questions });
  const little = await answersUnder(budgetGigabytes, { model, threads, root, questions });
  const same = little.texts.filter((text, at) => text === plenty.texts[at]).length;
  const megabytes = (bytes) => bytes / 1e6;
  figures.add("128k under 256 MB: KV of the context", megabytes(little.status.kvBytes), "MB");
  figures.add("128k under 256 MB: answers that are the same as with 8 GB", (100 * same) / questions.length, "%", {
    goal: 100,
  });
  figures.add("128k under 256 MB: memory for KV and side-cars", megabytes(little.status.memory.bytes), "MB", {
    goal: budgetGigabytes * 1000,
    better: "lower",
  });
  figures.add(
    "128k under 256 MB: anonymous memory beyond an engine with its model, most",
    megabytes(little.most - little.base),
    "MB",
    {
      goal: budgetGigabytes * 1000 * 1.1,
      better: "lower",
    },
  );
  const planned = little.status.memory.bytesMax + little.status.memory.engineBytes;
  figures.add("128k under 256 MB: anonymous memory, most, of what the plan says", (100 * little.most) / planned, "%", {
    goal: 110,
    better: "lower",
  });
  figures.add("128k under 256 MB: read from disk", megabytes(little.status.memory.diskBytesRead), "MB");
  figures.add("128k under 256 MB: blocks read from disk, an answer", little.blocksRead / questions.length, "blocks");
  figures.add("128k under 256 MB: decode", little.rate, "tokens/s");
  figures.add("128k with 8 GB: decode", plenty.rate, "tokens/s");
  return { plenty, little };
}

async function answersUnder(memoryGigabytes, { model, threads, root, questions }) {
  const engine = await startEngine({ model, threads, home: keptHome(), changes: { memoryGigabytes } });
  // The model and its buffers, before there is any context.
  await ask(engine, "", "Hello!");
  const base = anonymousBytes(engine.pid) ?? 0;
  await engine.request("nosa/index", { root, editorExcludes: {} });
  const { most, result: results } = await mostAnonymousBytes(engine.pid, async () => {
    const all = [];
    for (const { question } of questions) all.push(await ask(engine, root, question));
    return all;
  });
  const status = await engine.request("nosa/status", {});
  await engine.stop();
  const usages = results.map(({ usage }) => usage);
  const sum = (of) => usages.reduce((total, usage) => total + of(usage), 0);
  return {
    texts: results.map(({ text }) => text),
    usages,
    base,
    most,
    status,
    blocksRead: sum(({ blocksRead }) => blocksRead),
    rate: (1000 * sum(({ answerTokens }) => answerTokens)) / sum(({ millis }) => millis.decode),
  };
}

function ask(engine, root, question) {
  return engine.request("nosa/chat", {
    root,
    messages: [{ role: "user", content: question }],
    tokensMax: 40,
    temperature: 0,
    seed: 1,
  });
}
