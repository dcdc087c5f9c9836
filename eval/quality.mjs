// What reading sparsely costs and what an adapter wins back, in this engine, on repositories that no adapter was trained on.
//
//   --model ID        a known model, or the path of one (the default one); without an adapter for it the rows that need one are left out
//   --sizes A,B       tokens of contexts (8192,16384,32768); 131072 asks look-ups alone
//   --contexts N      contexts of each size, of as many repositories as there are, then again of each (2)
//   --lookups N       questions over each context (9)    --snippets N  how many of them over passages that a search finds (2)
//   --lines N         lines to write, each as next line, as hole, and from a point within it on (4)
//   --threads N       (the number of cores)              --seconds N  no context is begun after so long (3300)
//   --query-blocks A,B  of the adapter's 64 blocks, how many the query may choose beside the product's: a row for each
//   --rows "A|B"      only rows whose name has one of these in it; NOSA_BENCH_ADAPTERS says which adapters, --label what to call one beside others
//   --json FILE       rows with paired differences, and every single answer
//   --shard I/N       only every N-th context from number I on, for processes side by side, and no figures; sizes come in turn
//   --merge A,B,...   no reading: one report of what such processes wrote with --json
//
// Rows answer the same requests: files being written (perplexity), next lines and holes that use a name of another file, questions about the code.
// "as chat asks" has a question see the blocks that hold what it names too, as the product's chat does; the other rows leave them to selection.
// The log says how many seconds each row took. Sparse rows attend to 4,096 tokens. Differences carry 95 % paired bootstrap intervals.
import { readFileSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { finish, greedy, openContext, openModel, selections } from "../bench/lib/context.mjs";
import { bootstrap } from "../bench/lib/figures.mjs";
import { contextBlocks, Moves } from "../bench/lib/moves.mjs";
import { parseShard } from "../bench/lib/options.mjs";
import { modelFile, product } from "../bench/lib/product.mjs";
import { similarity } from "../bench/lib/similarity.mjs";
import { Asker } from "../bench/lookups/ask.mjs";
import { Snippets, snippetTokens } from "../bench/lookups/snippets.mjs";
import { heldOutRepositories } from "./heldOut.mjs";
import { holePieces, holesOf } from "./holes.mjs";
import { windows } from "./tasks.mjs";

const liveTokens = 512;
const movesSteps = 224;
const snippetTokensMax = 4_096;
/** Live files that are forced. */
const forcedMax = 3;
/** Beyond it one sequence is longer than the model's positions. */
const sequenceTokensMax = 32_768 - 2_048;
const charactersPerToken = 3.5;

const budget = (totalBlocks) => ({
  ...selections.nosa,
  totalBlocks,
  queryBlocks: totalBlocks >> 1,
  windowBlocks: Math.min(17, totalBlocks >> 2),
});

/** A row of the product's 64 blocks, of which the query chooses another share. */
const split = (queryBlocks) => ({
  name: `nosa adapter, ${queryBlocks} blocks by the query`,
  layout: "segments",
  adapter: true,
  selection: { ...selections.nosa, queryBlocks },
});

/** What each row is: model with or without adapter, layout of the context, selection. `only`: kinds of requests. `named`: questions see what they name. */
const rows = [
  { name: "no repository", layout: "none" },
  { name: "dense, sequence", layout: "sequence" },
  { name: "dense, segments", layout: "segments" },
  { name: "infllmv2, segments", layout: "segments", selection: selections.infllmv2, moves: true },
  { name: "nosa training-free, segments", layout: "segments", selection: selections.nosa, moves: true },
  { name: "nosa adapter, segments", layout: "segments", adapter: true, selection: selections.nosa, moves: true },
  {
    name: "nosa adapter, as chat asks",
    layout: "segments",
    adapter: true,
    selection: selections.nosa,
    only: "lookups",
    named: true,
  },
  ...[16, 32, 96, 128].map((blocks) => ({
    name: `nosa adapter, ${64 * blocks} tokens`,
    layout: "segments",
    adapter: true,
    selection: budget(blocks),
    only: "perplexity",
  })),
  { name: "adapter dense, segments", layout: "segments", adapter: true, only: "perplexity" },
];

function rowsAsked(options) {
  const splits = options["query-blocks"] === undefined ? [] : String(options["query-blocks"]).split(",");
  const label = options.label === undefined ? "adapter" : `adapter ${String(options.label)}`;
  const parts = String(options.rows ?? "").split("|");
  return [...rows, ...splits.map((blocks) => split(Number(blocks)))]
    .filter(({ name }) => parts.some((part) => name.includes(part)))
    .map((row) => ({ ...row, name: row.name.replace("adapter", label) }));
}

export async function run(figures, options) {
  const threads = Number(options.threads ?? os.cpus().length);
  const model = String(options.model ?? "qwen2.5-coder-0.5b-instruct");
  const results = options.merge === undefined ? [] : merged(String(options.merge).split(","));
  const write = () => {
    if (options.json === undefined) return;
    const record = { model, threads, figures: figures.all, rows: summarise(results), results };
    writeFileSync(String(options.json), `${JSON.stringify(record, null, 1)}\n`);
  };
  if (options.merge === undefined) await readAll(results, { model, threads, write }, options);
  if (options.shard === undefined) report(figures, results);
  write();
}

/** What the processes with a share each answered. */
function merged(files) {
  const found = new Map();
  for (const { answers, ...context } of files.flatMap((file) => JSON.parse(readFileSync(file, "utf8")).results)) {
    const key = `${context.size} ${contextName(context)}`;
    // Rows of the same context that another process answered, with another adapter.
    found.set(key, { ...context, answers: { ...found.get(key)?.answers, ...answers } });
  }
  return [...found.values()].sort((a, b) => a.size - b.size || (contextName(a) < contextName(b) ? -1 : 1));
}

/** Adds the answers over each context to `results`. */
async function readAll(results, { model, threads, write }, options) {
  const file = path.isAbsolute(model) ? model : await modelFile(model);
  const sizes = String(options.sizes ?? "8192,16384,32768")
    .split(",")
    .map(Number);
  const until = performance.now() + 1000 * Number(options.seconds ?? 3300);
  const shard = parseShard(String(options.shard ?? "0/1"));
  const models = {
    plain: await openModel(file, { threads, plain: true }),
    adapted: await openModel(file, { threads }),
  };
  const isAdapted = models.adapted.info.selection === "adapter";
  if (!isAdapted) console.log("No adapter came for this model: rows that need one are left out.");
  const table = rowsAsked(options).filter((row) => isAdapted || row.adapter !== true);
  const wanted = { lookups: Number(options.lookups ?? 9), lines: Number(options.lines ?? 4) };
  const snippets = Number(options.snippets ?? 2);
  const count = Number(options.contexts ?? 2);
  const bySize = sizes.map((size) => contextsOf(size, count, wanted).map((window) => ({ size, window })));
  // Of each size one in turn: a run that is cut short has some of all.
  const contexts = Array.from({ length: count }, (_, at) => bySize.flatMap((own) => own.slice(at, at + 1))).flat();
  for (const { size, window } of contexts.filter((_, at) => at % shard.of === shard.at)) {
    if (performance.now() > until) break;
    const { repository, part, files, lookups, lines } = window;
    const amount = `${files.length} files, ${lookups.length} questions, ${lines.length} lines`;
    console.log(`${size}: ${contextName(window)}, ${amount}`);
    results.push({ size, repository, part, answers: await read(models, table, window, { size, snippets }) });
    write();
  }
  for (const each of Object.values(models)) await each.dispose();
}

/** Windows of a size, `part` 1 of each repository before part 2 of any. */
function contextsOf(size, count, wanted) {
  const parts = heldOutRepositories().flatMap((repository) =>
    windows(repository, size, (text) => text.length / charactersPerToken, wanted).map((window, at) => ({
      ...window,
      part: at + 1,
    })),
  );
  return parts.sort((a, b) => a.part - b.part).slice(0, count);
}

function contextName({ repository, part = 1 }) {
  return part === 1 ? repository : `${repository}, part ${part}`;
}

/** Answers of every row: `{[row]: [{kind, id, nll, tokens, exact, similarity}]}`. */
async function read(models, table, window, { size, snippets }) {
  const answers = {};
  const groups = new Map();
  for (const row of table) {
    const group = `${row.adapter === true ? "adapted" : "plain"} ${row.layout}`;
    groups.set(group, [...(groups.get(group) ?? []), row]);
  }
  for (const [group, members] of groups) {
    const [which, layout] = group.split(" ");
    if (layout === "sequence" && size > sequenceTokensMax + 2_048) continue;
    const context = await timed(`reading, ${group}`, () =>
      openContext(models[which], { name: window.repository, files: window.files, layout, keep: false }),
    );
    for (const row of members) {
      if (size > 32_768 && row.only === "perplexity") continue;
      answers[row.name] = await timed(row.name, () => answersOf(row, context, window, size));
    }
    if (group === "plain none" && snippets > 0)
      answers.snippets = await timed("snippets", () => snippetAnswers(context, window, snippets));
    await context.dispose();
  }
  return answers;
}

/** Says how long it took, so that longer runs can be planned. */
async function timed(what, work) {
  const start = performance.now();
  const result = await work();
  console.log(`  ${what}: ${((performance.now() - start) / 1000).toFixed(1)} s`);
  return result;
}

async function answersOf(row, context, window, size) {
  const { selection, only, named } = row;
  const answers = [];
  const isWritten = size <= 32_768 && only !== "lookups";
  for (const [at, live] of window.live.slice(0, isWritten ? forcedMax : 0).entries()) {
    answers.push(...(await perplexity(context, live, { selection, moves: row.moves === true && at === 0 })));
  }
  if (only === "perplexity") return answers;
  if (isWritten) answers.push(...(await writtenLines(context, window, selection)));
  const asSeen = ({ question }) => (named === true ? { selection: context.selectionAsked(question) } : {});
  const questions = window.lookups.map((each) => ({ ...each, ...asSeen(each) }));
  answers.push(...(await answered(context, questions, selection)));
  return answers;
}

/** A live file's first tokens, forced; and how selections move while it is written. */
async function perplexity(context, live, { selection, moves }) {
  const { model } = context;
  const { headerTokens, tokens } = await model.text.file(live.path, live.text, new AbortController().signal);
  const { sequence, before } = await context.tail();
  if (selection !== undefined) await sequence.select(selection);
  const lead = [...before, ...headerTokens];
  const body = tokens.slice(0, liveTokens);
  await sequence.setTokens(Uint32Array.from([...lead, ...body]));
  const { logprobs } = await sequence.score({ from: lead.length });
  const nll = -logprobs.reduce((sum, each) => sum + each, 0) / body.length;
  const answers = [{ kind: "perplexity", id: live.path, nll, tokens: body.length }];
  if (moves) answers.push({ kind: "moves", id: live.path, ...(await movesOf(context, sequence, lead, body)) });
  await sequence.dispose();
  return answers;
}

async function movesOf(context, sequence, lead, body) {
  const seen = new Moves(contextBlocks(context));
  const start = 32;
  await sequence.setTokens(Uint32Array.from([...lead, ...body.slice(0, start)]));
  await finish(sequence);
  for (let at = start; at < Math.min(body.length, start + movesSteps); at += 32) {
    const teacher = body.slice(at, at + 32);
    const { steps } = await sequence.decode({
      steps: teacher.length,
      sampling: greedy,
      stopIds: [],
      teacher,
      selections: true,
    });
    for (const step of steps) seen.add(step.selections);
  }
  return seen.steps > 0 && seen.counted ? { ...seen.summary(), layers: seen.heads(context.model.info.kvHeads) } : {};
}

async function writtenLines(context, { lines }, selection) {
  const { model } = context;
  const { fim } = product.promptFormat(model.tokenizer);
  const never = new AbortController().signal;
  const prompts = [];
  for (const each of lines) {
    const { id, path, prefix, line } = each;
    const { headerTokens } = await model.text.file(path, "", never);
    const add = async (kind, tokens, answer) =>
      prompts.push({ kind, id, tokens: [...headerTokens, ...tokens], right: await model.encode(answer), answer });
    await add("nextLine", await model.encode(prefix), line);
    for (const { kind, order, answer, ...around } of holesOf(each)) {
      if (fim === undefined && order === "suffix first") continue;
      await add(kind, await model.tokenizer.encodeJoined(holePieces(fim, order, around)), answer);
    }
  }
  if (prompts.length === 0) return [];
  const asker = await Asker.openPrompts(context, prompts, { selection, stopIds: model.text.completionStopIds });
  const answers = [];
  for (const [index, { kind, id, answer }] of prompts.entries()) {
    const { text, nll, tokens } = await asker.ask(index);
    const written = text.split("\n")[0].trim();
    answers.push({
      kind,
      id,
      nll,
      tokens,
      text: written,
      exact: written === answer.trim(),
      similarity: similarity(written, answer.trim()),
    });
  }
  await asker.dispose();
  return answers;
}

async function answered(context, questions, selection) {
  if (questions.length === 0) return [];
  const asker = await Asker.open(context, questions, { selection });
  const answers = [];
  for (const [index, { kind, question }] of questions.entries()) {
    const { text, exact, nll, tokens } = await asker.ask(index);
    answers.push({ kind, id: question, nll, tokens, text, exact });
  }
  await asker.dispose();
  return answers;
}

/** The first questions of a context, over passages that a search finds, as many tokens of them as sparse rows attend to. */
async function snippetAnswers(context, { files, lookups }, count) {
  const snippets = new Snippets(files);
  const asked = [];
  for (const each of lookups.slice(0, count)) {
    asked.push({ ...each, before: await snippetTokens(context.model, snippets, each.question, snippetTokensMax) });
  }
  return answered(context, asked, undefined);
}

const lookupKinds = ["signature", "definition", "calls"];
const kindsOf = {
  perplexity: ["perplexity"],
  nextLine: ["nextLine"],
  infill: ["infill"],
  infillSuffixFirst: ["infillSuffixFirst"],
  infillWithin: ["infillWithin"],
  infillWithinSuffixFirst: ["infillWithinSuffixFirst"],
  lookups: lookupKinds,
};
const references = ["dense, sequence", "dense, segments"];
const adapterRow = "nosa adapter, segments";
const chatRow = "nosa adapter, as chat asks";
/** They have goals. */
const ourRows = [adapterRow, chatRow];
const trainingFreeRow = "nosa training-free, segments";
/** What the adapter must beat, and by which figure. */
const beaten = {
  lookups: ["no repository", "snippets"],
  nextLine: ["no repository"],
  infill: ["no repository"],
  infillSuffixFirst: ["no repository"],
  infillWithin: ["no repository"],
  infillWithinSuffixFirst: ["no repository"],
  perplexity: [trainingFreeRow],
};

/** One row a size, reading and kind, with paired differences to both dense readings. */
function summarise(results) {
  const summary = [];
  const names = new Set(results.flatMap(({ answers }) => Object.keys(answers)));
  const groups = { ...kindsOf, ...Object.fromEntries(lookupKinds.map((kind) => [kind, [kind]])) };
  for (const size of new Set(results.map((result) => result.size))) {
    const own = results.filter((result) => result.size === size);
    for (const name of names) {
      for (const [kind, members] of Object.entries(groups)) {
        const ours = answersIn(own, name, members);
        if (ours.size === 0) continue;
        const row = { size, reading: name, kind, cases: ours.size, ...means([...ours.values()]) };
        const others = [...references, ...(ourRows.includes(name) ? (beaten[kind] ?? []) : [])];
        for (const other of others.filter((each) => each !== name)) {
          const theirs = answersIn(own, other, members);
          const pairs = [...ours].flatMap(([id, each]) => (theirs.has(id) ? [[each, theirs.get(id)]] : []));
          if (pairs.length > 0) row[`less ${other}`] = differences(pairs);
        }
        summary.push(row);
      }
      const moved = own.flatMap(({ answers }) =>
        (answers[name] ?? []).filter(({ kind, overlap }) => kind === "moves" && overlap > 0),
      );
      if (moved.length === 0) continue;
      const mean = (of) => moved.reduce((sum, each) => sum + of(each), 0) / moved.length;
      const inLayers = (key) => moved[0].layers.map((_, layer) => mean((each) => each.layers[layer][key]));
      const rivals = name === adapterRow ? own.flatMap(({ answers }) => pairsOfMoves(answers)) : [];
      summary.push({
        size,
        reading: name,
        kind: "locality",
        cases: moved.length,
        overlap: mean((each) => each.overlap),
        misses64: mean((each) => each.misses64),
        misses128: mean((each) => each.misses128),
        layers: {
          overlap: inLayers("overlap"),
          misses64: inLayers("misses64"),
          misses128: inLayers("misses128"),
        },
        ...(rivals.length === 0
          ? {}
          : { [`misses64 less ${trainingFreeRow}`]: bootstrap(rivals.map(([ours, theirs]) => ours - theirs)) }),
      });
    }
  }
  return summary;
}

/** Misses with 64 slots of the adapter's selections and of those without training, over the same file. */
function pairsOfMoves(answers) {
  const of = (name) => (answers[name] ?? []).find(({ kind, overlap }) => kind === "moves" && overlap > 0);
  const [ours, theirs] = [of(adapterRow), of(trainingFreeRow)];
  return ours === undefined || theirs === undefined ? [] : [[ours.misses64, theirs.misses64]];
}

/** Answers by what was asked, over all contexts. */
function answersIn(results, name, kinds) {
  return new Map(
    results.flatMap(({ answers, ...context }) =>
      (answers[name] ?? [])
        .filter(({ kind }) => kinds.includes(kind))
        .map((each) => [`${contextName(context)} ${each.kind} ${each.id}`, each]),
    ),
  );
}

function means(answers) {
  const mean = (of) => answers.reduce((sum, each) => sum + of(each), 0) / answers.length;
  const tokens = answers.reduce((sum, each) => sum + each.tokens, 0);
  const nll = answers.reduce((sum, each) => sum + each.nll * each.tokens, 0) / tokens;
  const scored = answers.every(({ exact }) => exact !== undefined)
    ? { exact: 100 * mean(({ exact }) => Number(exact)) }
    : {};
  const alike = answers.every((each) => each.similarity !== undefined)
    ? { similarity: mean((each) => each.similarity) }
    : {};
  return { nll, perplexity: Math.exp(nll), ...scored, ...alike };
}

function differences(pairs) {
  const of = (value) => bootstrap(pairs.map(([ours, theirs]) => value(ours) - value(theirs)));
  const [first] = pairs[0];
  return {
    cases: pairs.length,
    nll: of(({ nll }) => nll),
    ...(first.exact === undefined ? {} : { exact: of(({ exact }) => 100 * Number(exact)) }),
    ...(first.similarity === undefined ? {} : { similarity: of((each) => each.similarity) }),
  };
}

function report(figures, results) {
  const summary = summarise(results);
  for (const { size, reading, kind, cases, ...row } of summary) {
    const isPart = lookupKinds.includes(kind);
    // Of each kind of look-up, whether it fits the model.
    if (isPart && reading !== references[0]) continue;
    const where = `${size >> 10}k ${reading}: ${kind} (${cases})`;
    if (kind === "locality") {
      figures.add(`${where}, overlap (the paper: 0.944)`, row.overlap, "of 1");
      figures.add(`${where}, misses with 64 slots (the paper: 3.58)`, row.misses64, "blocks");
      figures.add(`${where}, misses with 128 slots (the paper: 0.71)`, row.misses128, "blocks");
      const less = row[`misses64 less ${trainingFreeRow}`];
      if (less !== undefined) {
        const against = `${where}, misses with 64 slots, against ${trainingFreeRow} ${interval(less)}`;
        figures.add(against, less.mean, "blocks", { goal: 0, better: "lower" });
      }
      continue;
    }
    if (kind === "perplexity") figures.add(where, row.perplexity, "ppl");
    else {
      figures.add(`${where}, right`, row.exact, "%", {
        goal: (kind === "lookups" || isPart) && reading === references[0] ? 60 : null,
      });
      figures.add(`${where}, right answer forced`, row.nll, "nats/token");
    }
    if (row.similarity !== undefined) figures.add(`${where}, edit similarity`, row.similarity, "%");
    if (ourRows.includes(reading))
      goals(figures, where, kind, row, size > sequenceTokensMax + 2_048 ? references[1] : references[0]);
  }
}

function interval({ low, high }, factor = 1) {
  return `[${(factor * low).toFixed(2)}, ${(factor * high).toFixed(2)}]`;
}

/** The adapter against the dense model over one sequence, and against what it must beat. */
function goals(figures, where, kind, row, other) {
  for (const rival of beaten[kind] ?? []) {
    const less = row[`less ${rival}`];
    if (less === undefined) continue;
    if (kind === "perplexity") {
      const percent = 100 * (Math.exp(less.nll.mean) - 1);
      figures.add(`${where} against ${rival} ${interval(less.nll, 100)}`, percent, "%", { goal: 0, better: "lower" });
    } else {
      const name = `${where}, right, against ${rival} (${less.cases}) ${interval(less.exact)}`;
      figures.add(name, less.exact.mean, "points", { goal: 0 });
    }
  }
  const less = row[`less ${other}`];
  if (less === undefined) return;
  if (kind === "perplexity") {
    const percent = 100 * (Math.exp(less.nll.mean) - 1);
    figures.add(`${where} against ${other} ${interval(less.nll, 100)}`, percent, "%", { goal: 1, better: "lower" });
    return;
  }
  figures.add(`${where}, right, against ${other} ${interval(less.exact)}`, less.exact.mean, "points", { goal: -1 });
  if (less.similarity !== undefined) {
    const { similarity: alike } = less;
    figures.add(`${where}, edit similarity, against ${other} ${interval(alike)}`, alike.mean, "points", { goal: -1 });
  }
}
