// Real changes replayed: of what was added to a project, single lines are hidden and completed, with the project read as a repository. A change is replayed
// file by file in path order: while one is written, those before it have their new text already, it itself and those behind it were read as they were before.
// The changes are from release to release of public packages, as packages ship no history: the lines of one file in one release stand for a commit.
//
// Three ways answer the same cases with the same model file, greedily, one line each (bench/replay/written.mjs):
//   ours    the product's prompt, selection and adapter, over the whole repository
//   file    the same with no repository: the text around the cursor alone
//   llama   llama.cpp with llama.vscode's published budget: 256 and 64 lines, and 16 chunks of 64 lines of other files (bench/replay/llama.mjs)
//
//   --cases N      how many, three of each change, from the first on (300)        --only A,B    ways (ours,file,llama; more in
//                  bench/replay/variants.mjs)
//   --likelier A,B figures of one way more: of what these ways wrote, what its own model holds for likeliest
//   --model ID     a known model (the default one)     --threads N (the number of cores)
//   --llama-gpu G  llama.cpp on a GPU, by a build of node-llama-cpp that is installed: cuda or vulkan
//   --window N     most tokens before the cursor that the first two see (1024, what the product comes to on a machine that reads them fast enough)
//   --tokens N     most tokens of a repository that are read while a file is written, the product's most useful files first (all)
//   --git DIR      the commits of this repository instead, newest first, three lines of each
//   --shard I/N    only every N-th change from number I on, for processes with cache folders of their own; theirs put together are the whole's
//   --list         says what there is to replay, and ends       --kept   no answering: figures of the changes that every way has answered already
//   --results DIR  where every answer is kept as JSON (bench/results/replay for the whole; nowhere for less)
//
// Finished cases are kept in the benchmarks' cache folder: a run that is stopped goes on where it was. Exact: the line as it was, but for white space around
// it. Similarity: 100 less the edits it takes, in percent of the longer line. Intervals are 95 % bootstrap intervals of paired differences, drawn by change.
import { mkdirSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { emptyPool, openContext, openModel } from "./lib/context.mjs";
import { bootstrap, mean, median } from "./lib/figures.mjs";
import { modelFile, product } from "./lib/product.mjs";
import { parseShard } from "./lib/options.mjs";
import { similarity } from "./lib/similarity.mjs";
import { changesOf } from "./replay/changes.mjs";
import { commits } from "./replay/commits.mjs";
import { Kept } from "./replay/kept.mjs";
import { openLlamaVscode, ringOf } from "./replay/llama.mjs";
import { complete } from "./replay/ours.mjs";
import { steps } from "./replay/releases.mjs";
import { variants } from "./replay/variants.mjs";

/** So that no release outweighs the others. */
const changesOfStepMax = 6;
const charactersPerToken = 3.6;
const ways = {
  ours: "ours, with the repository",
  file: "the same model, the file alone",
  llama: "llama.cpp with llama.vscode's budget",
};

const likelierWay = "the likelier of them";

export async function run(figures, options) {
  const cases = Number(options.cases ?? 300);
  const model = String(options.model ?? "qwen2.5-coder-0.5b-instruct");
  const window = Number(options.window ?? 1_024);
  const threads = Number(options.threads ?? os.cpus().length);
  const only = String(options.only ?? Object.keys(ways).join(",")).split(",");
  // A trial must not write over the whole.
  const isWhole = cases >= 300 && options.only === undefined;
  const results =
    options.results ?? (isWhole ? fileURLToPath(new URL("./results/replay/", import.meta.url)) : undefined);
  const whole = planned(options.git === undefined ? steps() : commits(String(options.git)), cases);
  const plan = options.shard === undefined ? whole : shareOf(whole, parseShard(String(options.shard)), only);
  if (options.list === true) return list(plan);

  const file = await modelFile(model);
  const tokensMax = Number(options.tokens ?? Infinity);
  const kept = new Kept(`${model} ${window} in path order${tokensMax < Infinity ? ` of ${tokensMax}` : ""}`);
  const replay = new Replay({ file, threads, window, gpu: options["llama-gpu"] ?? false, kept });
  const done = [];
  try {
    for (const step of options.kept === true ? answeredOf(plan, kept, only) : plan) {
      for (const written of filesOf(step, tokensMax)) {
        for (const way of only) await replay.answer(way, written);
        await replay.endFile();
      }
      done.push(step);
      const count = done.reduce((sum, { changes }) => sum + changes.flat().length, 0);
      console.log(`  ${step.name} ${step.from} to ${step.to}: ${count} of ${cases} cases`);
    }
  } finally {
    await replay.dispose();
  }
  if (done.length === 0) throw new Error("No change has an answer of every way.");
  const changes = done.flatMap((step) =>
    step.changes.map((change) => change.map((each) => replay.answersOf(each, only))),
  );
  const likelier = options.likelier === undefined ? undefined : String(options.likelier).split(",");
  if (likelier !== undefined) {
    for (const each of changes.flat()) each[likelierWay] = likeliest(likelier.map((way) => each[way]));
    only.push(likelierWay);
  }
  report(figures, changes, only);
  if (results === undefined) return;
  mkdirSync(String(results), { recursive: true });
  const sources = done.map(({ name, from, to, licence }) => ({ name, from, to, licence }));
  const record = {
    date: new Date().toISOString().slice(0, 10),
    model,
    window,
    tokensMax,
    sources,
    figures: figures.all,
    changes,
  };
  writeFileSync(path.join(String(results), "replay.json"), `${JSON.stringify(record, null, 1)}\n`);
}

/** Steps with their changes and the files that these change, as many as there are cases wanted. */
function planned(from, cases) {
  const plan = [];
  let left = cases;
  for (const step of from) {
    if (left <= 0) break;
    const changes = changesOf(step).slice(0, Math.min(changesOfStepMax, Math.ceil(left / 3)));
    if (changes.length === 0) continue;
    left -= changes.flat().length;
    plan.push({ ...step, changes, changed: new Set(changes.flat().map(({ path: name }) => name)) });
  }
  return plan;
}

/**
 * Whole steps for a way that reads their repository, else whole changes, those of a file behind each other: llama.cpp keeps what their prompts begin with.
 */
function shareOf(plan, { at, of }, only) {
  if (only.some((way) => way !== "file" && way !== "llama")) {
    const byTokens = [...plan].sort((a, b) => sizeOf(b) - sizeOf(a));
    return plan.filter((step) => byTokens.indexOf(step) % of === at);
  }
  let count = -1;
  return plan
    .map((step) => ({ ...step, changes: step.changes.filter(() => (count += 1) % of === at) }))
    .filter(({ changes }) => changes.length > 0);
}

/** Steps with those of their changes of which every case has an answer of each way. */
function answeredOf(plan, kept, only) {
  const isAnswered = (change) => change.every(({ id }) => only.every((way) => kept.get(way, id) !== undefined));
  return plan
    .map((step) => ({ ...step, changes: step.changes.filter(isAnswered) }))
    .filter(({ changes }) => changes.length > 0);
}

/** A step's cases by the file they are in, each with what is read as the repository while that file is written. */
function filesOf({ name, base, next, changed, changes }, tokensMax) {
  const cases = changes.flat();
  return [...new Set(cases.map(({ path }) => path))].sort().map((file) => {
    const all = [...next.filter(({ path }) => path < file), ...base.filter(({ path }) => path >= file)];
    return {
      name,
      changed,
      cases: cases.filter(({ path }) => path === file),
      all,
      repository: mostUseful(all, file, tokensMax),
    };
  });
}

/** What is read of a repository that is too large: the product's order, for a user who has `file` open. */
function mostUseful(files, file, tokensMax) {
  let left = tokensMax * charactersPerToken;
  const ordered = product.byUsefulness(
    files.map((each) => ({ ...each, bytes: each.text.length })),
    new Set([file]),
  );
  return ordered.filter(({ bytes }) => (left -= bytes) >= 0).map(({ path, text }) => ({ path, text }));
}

function sizeOf({ base }) {
  return base.reduce((sum, { text }) => sum + text.length, 0);
}

function list(plan) {
  for (const { name, from, to, base, changes } of plan) {
    const tokens = Math.round(sizeOf({ base }) / charactersPerToken);
    console.log(`${name} ${from} to ${to}: ${base.length} files, ${tokens} tokens, ${changes.length} changes`);
  }
  console.log(`${plan.reduce((sum, { changes }) => sum + changes.flat().length, 0)} cases`);
}

/** Owns the models; each is loaded when it is first needed. */
class Replay {
  #options;
  #ours;
  #llama;
  #contexts = new Map();
  /** By layout; from one file's repository to the next one's little changes. */
  #pools = new Map();

  constructor(options) {
    this.#options = options;
  }

  /** Answers those cases of a file that no earlier run has. */
  async answer(way, written) {
    const { kept } = this.#options;
    const left = written.cases.filter(({ id }) => kept.get(way, id) === undefined);
    if (left.length === 0) return;
    const complete = way === "llama" ? await this.#withLlama(written) : await this.#withOurs(written, variants[way]);
    for (const each of left) {
      const answer = await complete.of(each);
      const exact = answer.line === each.right;
      const alike = similarity(answer.line, each.right);
      kept.put({ method: way, id: each.id, ...answer, right: each.right, exact, similarity: alike });
    }
  }

  /** Repositories are read once for all ways of a file. */
  async endFile() {
    for (const context of this.#contexts.values()) await context.dispose();
    this.#contexts.clear();
  }

  /** `{id, right, [way]: answer}` */
  answersOf({ id, right }, only) {
    const answers = only.map((way) => [way, this.#options.kept.get(way, id)]);
    return { id, right, ...Object.fromEntries(answers) };
  }

  async #withOurs({ name, repository }, { layout = "segments", ...way }) {
    const { file, threads, window } = this.#options;
    this.#ours ??= await openModel(file, { threads });
    let context = this.#contexts.get(layout);
    if (!this.#pools.has(layout)) this.#pools.set(layout, new Map());
    context ??= await openContext(this.#ours, { name, files: repository, layout, pool: this.#pools.get(layout) });
    this.#contexts.set(layout, context);
    return { of: (each) => complete(context, each, window, way) };
  }

  async #withLlama({ all, changed }) {
    const { file, threads, gpu } = this.#options;
    this.#llama ??= await openLlamaVscode(file, { threads, gpu });
    return {
      of: (each) => this.#llama.complete(each, ringOf(all, each.path, changed)),
    };
  }

  async dispose() {
    await this.endFile();
    for (const pool of this.#pools.values()) await emptyPool(pool);
    await this.#ours?.dispose();
    await this.#llama?.dispose();
  }
}

/** Both have to be written for it. */
function likeliest(answers) {
  const milliseconds = answers.reduce((sum, each) => sum + each.milliseconds, 0);
  return { ...answers.reduce((best, each) => (each.logprob > best.logprob ? each : best)), milliseconds };
}

function report(figures, changes, only) {
  const cases = changes.flat();
  for (const way of only) {
    const own = cases.map((each) => each[way]);
    figures.add(
      `${ways[way] ?? way}: exact (${own.length})`,
      (100 * own.filter(({ exact }) => exact).length) / own.length,
      "%",
    );
    figures.add(`${ways[way] ?? way}: edit similarity`, mean(own.map((answer) => answer.similarity)), "%");
    figures.add(
      `${ways[way] ?? way}: time of a case, nothing kept of the last, median`,
      median(own.map((answer) => answer.milliseconds)),
      "ms",
    );
  }
  const isProducts = (way) => way === "ours" || way === "file" || way === "llama";
  const pairs = [
    ...only.filter((way) => way !== "ours" && isProducts(way)).map((other) => ["ours", other]),
    ...only.filter((way) => !isProducts(way)).map((way) => [way, "file"]),
  ].filter((pair) => pair.every((way) => only.includes(way)));
  for (const [way, other] of pairs) {
    for (const [what, value] of [
      ["exact", (answer) => 100 * Number(answer.exact)],
      ["edit similarity", (answer) => answer.similarity],
    ]) {
      const differences = changes.map((change) => mean(change.map((each) => value(each[way]) - value(each[other]))));
      const { mean: difference, low, high } = bootstrap(differences);
      const interval = `[${low.toFixed(1)}, ${high.toFixed(1)}]`;
      figures.add(`${what}: ${way} less ${ways[other] ?? other} ${interval}`, difference, "points");
      if (way === "ours") figures.add(`${what}: lower end of that interval`, low, "points", { goal: 0 });
    }
  }
}
