// From a started engine process to the first token of an answer over a saved context, and how long it takes to have a saved context back.
import { median } from "../lib/figures.mjs";
import { startEngine } from "../lib/product.mjs";
import { keptHome, repository } from "./repositories.mjs";

const rounds = 5;
const question = "Which function parses the headers?";

export async function run(figures, { model, threads }) {
  const raw = [];
  const medians = {};
  for (const size of ["32k", "128k"]) {
    const root = repository(size);
    await makeReady(model, threads, root);
    const times = [];
    for (let round = 0; round < rounds; round += 1) times.push(await firstToken(model, threads, root));
    raw.push({ size, times });
    medians[size] = (name) => median(times.map((each) => each[name]));
    figures.add(`${model}: process start over saved ${size}: engine listens`, medians[size]("listening"), "ms");
    figures.add(`${model}: saved ${size}, first token after the process start`, medians[size]("firstToken"), "ms", {
      goal: size === "32k" ? 1000 : null,
      better: "lower",
    });
  }
  const resumed = [];
  const root = repository("128k");
  for (let round = 0; round < rounds; round += 1) resumed.push(await resume(model, threads, root));
  raw.push({ resumed });
  figures.add(
    `${model}: resume of a saved 128k context by a running engine, to the first token`,
    median(resumed),
    "ms",
    {
      goal: 1000,
      better: "lower",
    },
  );
  return raw;
}

/** Reads what is not saved yet, and gives the engine the time to save what every chat begins with. */
async function makeReady(model, threads, root) {
  const engine = await startEngine({ model, threads, home: keptHome() });
  await engine.request("nosa/index", { root, editorExcludes: {} });
  await ask(engine, root);
  await idle(engine);
  await engine.stop();
}

async function firstToken(model, threads, root) {
  const start = performance.now();
  const engine = await startEngine({ model, threads, home: keptHome() });
  const listening = performance.now() - start;
  const { millis, result } = await ask(engine, root);
  await idle(engine);
  await engine.stop();
  return { listening, firstToken: listening + millis, usage: result.usage };
}

/** The model is loaded, by a chat with no repository; the context is not. */
async function resume(model, threads, root) {
  const engine = await startEngine({ model, threads, home: keptHome() });
  await ask(engine, "");
  const { millis } = await ask(engine, root);
  await idle(engine);
  await engine.stop();
  return millis;
}

/** Milliseconds to the first text of an answer; `result` is the whole of it. */
async function ask(engine, root) {
  const token = `restart-${root}-${Math.random()}`;
  const start = performance.now();
  let millis = 0;
  engine.onProgress(token, (delta) => {
    if (delta.kind === "text" && millis === 0) millis = performance.now() - start;
  });
  const result = await engine.request("nosa/chat", {
    root,
    messages: [{ role: "user", content: question }],
    tokensMax: 8,
    temperature: 0,
    seed: 1,
    partialResultToken: token,
  });
  return { millis: millis === 0 ? performance.now() - start : millis, result };
}

async function idle(engine) {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, 300));
    if ((await engine.request("nosa/status", {})).activity.kind === "idle") return;
  }
}
