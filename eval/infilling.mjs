// Holes in functions that have tests: a line is hidden, the model writes it, and the tests say whether it is right. The function stands in the tail,
// behind a repository that has nothing to do with it: what selection must not lose here is the text around the hole.
//
//   --model ID       a known model, or the path of one (the default one)
//   --cases N        holes (60)
//   --size N         tokens of the repository (16384)
//   --threads N      (the number of cores)
//   --seconds N      no hole is begun after so long (3300)
//   --json FILE      every answer
//   --rows A         only rows whose name has this in it; NOSA_BENCH_ADAPTERS says which adapters, --label what to call one beside others
//   --shard I/N      only every N-th hole from number I on, for processes side by side
//   --merge A,B,...  no writing: one report of what such processes wrote with --json
//
// What was written is run (python3, little time and memory, no network): eval/judge.py.
import { readFileSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { greedy, openContext, openModel, selections } from "../bench/lib/context.mjs";
import { bootstrap } from "../bench/lib/figures.mjs";
import { parseShard } from "../bench/lib/options.mjs";
import { modelFile } from "../bench/lib/product.mjs";
import { heldOutRepositories } from "./heldOut.mjs";
import { holes, passes, tasks } from "./humanEval.mjs";

const stepsAtOnce = 12;
const stepsMax = 48;
const charactersPerToken = 3.5;

const rows = [
  { name: "dense, no repository", layout: "none" },
  { name: "dense, sequence", layout: "sequence" },
  { name: "dense, segments", layout: "segments" },
  { name: "infllmv2, segments", layout: "segments", selection: selections.infllmv2 },
  { name: "nosa training-free, segments", layout: "segments", selection: selections.nosa },
  { name: "nosa adapter, segments", layout: "segments", adapter: true, selection: selections.nosa },
];
const reference = "dense, sequence";

export async function run(figures, options) {
  if (options.merge !== undefined) return merge(figures, options);
  const threads = Number(options.threads ?? os.cpus().length);
  const model = String(options.model ?? "qwen2.5-coder-0.5b-instruct");
  const file = path.isAbsolute(model) ? model : await modelFile(model);
  const models = {
    plain: await openModel(file, { threads, plain: true }),
    adapted: await openModel(file, { threads }),
  };
  const isAdapted = models.adapted.info.selection === "adapter";
  if (!isAdapted) console.log("No adapter came for this model: the row that needs one is left out.");
  const shard = parseShard(String(options.shard ?? "0/1"));
  const wanted = holes(tasks(), Number(options.cases ?? 60)).filter((_, at) => at % shard.of === shard.at);
  const repository = repositoryOf(Number(options.size ?? 16_384));
  const until = performance.now() + 1000 * Number(options.seconds ?? 3300);
  const readers = [];
  for (const row of rowsAsked(options).filter((each) => isAdapted || each.adapter !== true)) {
    readers.push({ row, context: await contextOf(models, row, repository) });
  }
  console.log(`${wanted.length} holes behind ${repository.repository}, ${readers.length} rows`);
  const answers = [];
  // All rows of a hole before the next one: a run that is cut short has compared like with like.
  for (const hole of wanted) {
    if (performance.now() > until) break;
    const answer = { id: hole.id, line: hole.line, rows: {} };
    for (const { row, context } of readers) {
      const text = await written(context, row, hole);
      const isSame = text.trim() === hole.line.trim();
      answer.rows[row.name] = { text, exact: isSame, passed: isSame || passes(hole.program(text)) };
    }
    answers.push(answer);
    if (options.json !== undefined)
      writeFileSync(String(options.json), `${JSON.stringify({ model, answers }, null, 1)}\n`);
  }
  if (shard.of === 1) {
    report(
      figures,
      readers.map(({ row }) => row.name),
      answers,
    );
  }
  for (const context of new Set(readers.map((reader) => reader.context))) await context.dispose();
  for (const each of Object.values(models)) await each.dispose();
}

function rowsAsked(options) {
  const label = options.label === undefined ? "adapter" : `adapter ${String(options.label)}`;
  return rows
    .filter(({ name }) => name.includes(String(options.rows ?? "")))
    .map((row) => ({ ...row, name: row.name.replace("adapter", label) }));
}

/** What the processes wrote, the holes that every row has. */
function merge(figures, options) {
  const found = new Map();
  for (const file of String(options.merge).split(",")) {
    for (const { id, line, rows: own } of JSON.parse(readFileSync(file, "utf8")).answers) {
      const known = found.get(id);
      if (known !== undefined && known.line !== line) throw new Error(`${id} has another hole in ${file}.`);
      found.set(id, { id, line, rows: { ...known?.rows, ...own } });
    }
  }
  const all = [...found.values()];
  const names = [...new Set(all.flatMap((answer) => Object.keys(answer.rows)))];
  const answers = all.filter((answer) => names.every((name) => Object.hasOwn(answer.rows, name)));
  report(figures, names, answers);
  if (options.json !== undefined) {
    writeFileSync(String(options.json), `${JSON.stringify({ figures: figures.all, answers }, null, 1)}\n`);
  }
}

/** The first files of the first held-out Python repository that has enough of them: the functions are Python. */
function repositoryOf(size) {
  for (const { name, files } of heldOutRepositories().filter((each) => each.name.startsWith("pypi/"))) {
    const taken = [];
    let characters = 0;
    for (const file of files) {
      if (characters >= size * charactersPerToken) break;
      if (file.text.length > (size * charactersPerToken) / 2) continue;
      taken.push(file);
      characters += file.text.length;
    }
    if (characters >= size * charactersPerToken) return { repository: name, files: taken };
  }
  throw new Error(`No held-out Python repository has ${size} tokens.`);
}

const contexts = new Map();

/** One context for all rows of the same model and layout. */
async function contextOf(models, { layout, adapter }, { repository: name, files }) {
  const model = adapter === true ? models.adapted : models.plain;
  const key = `${adapter === true} ${layout}`;
  if (!contexts.has(key)) contexts.set(key, await openContext(model, { name, files, layout, keep: false }));
  return contexts.get(key);
}

/** The line that the model writes, in steps: most lines are short. */
async function written(context, { selection }, { id, prefix, suffix }) {
  const { model } = context;
  const hole = await model.text.completion({
    path: `functions/${id.replace(/\W+/g, "_")}.py`,
    prefix,
    suffix,
    prefixTokensMax: 2_048,
    suffixTokensMax: 1_024,
  });
  const { sequence, before } = await context.tail();
  if (selection !== undefined) await sequence.select(selection);
  await sequence.setTokens(Uint32Array.from([...before, ...hole.tokens]));
  const ids = [];
  let text = "";
  while (ids.length < stepsMax && !text.includes("\n")) {
    const { steps } = await sequence.decode({
      steps: stepsAtOnce,
      sampling: greedy,
      stopIds: model.text.answerStopIds,
    });
    ids.push(...steps.map(({ token }) => token));
    text = model.decode(ids);
    if (steps.length < stepsAtOnce) break;
  }
  await sequence.dispose();
  return text.split("\n")[0];
}

function report(figures, names, answers) {
  const rate = (name, of) => (100 * answers.filter(({ rows: all }) => all[name][of]).length) / answers.length;
  for (const name of names) {
    figures.add(`holes (${answers.length}) ${name}: tests pass`, rate(name, "passed"), "%");
    figures.add(`holes (${answers.length}) ${name}: the very line`, rate(name, "exact"), "%");
  }
  for (const name of names.includes(reference) ? names.filter((each) => each !== reference) : []) {
    const { mean, low, high } = bootstrap(
      answers.map(({ rows: all }) => 100 * (Number(all[name].passed) - Number(all[reference].passed))),
    );
    const goal = name === "nosa adapter, segments" ? -1 : null;
    const interval = `[${low.toFixed(1)}, ${high.toFixed(1)}]`;
    figures.add(`holes, tests pass, ${name} against ${reference} ${interval}`, mean, "points", { goal });
  }
}
