// Definitions asked for by name over 32 k and 128 k tokens of real code: selection, no selection, and the 8 k tokens of passages that a search finds.
//
// Every method answers the same questions with the same model and adapter, from the first on; the slow ones may answer fewer of them. Differences are over
// the questions that both answered, with 95 % bootstrap intervals.
//
//   --sizes A,B     of the repositories (32k,128k)        --repositories A,B  of bench/lookups/set.mjs, by name (all)
//   --methods A,B   (nosa,nosa:64,infllmv2,full,snippets,none) "nosa" is what chat does: its budget, and the blocks that hold what a question names; with
//                   a number of blocks, "nosa:64" or "infllmv2:256", selection finds them alone. "infllmv2" is "infllmv2:64"
//   --questions N   for each method at each size (200), but for these:
//   --infllmv2 N    (80)   --full N   (60)   --full-128k N   (24)   --snippets N   (6)
//   --shard I/N     this process's share of the questions, from 0 on (0/1)
import { bootstrap, mean } from "../lib/figures.mjs";
import { openContext, openModel, selections } from "../lib/context.mjs";
import { parseShard } from "../lib/options.mjs";
import { modelFile } from "../lib/product.mjs";
import { Asker } from "../lookups/ask.mjs";
import { isWanted, lookupSet } from "../lookups/set.mjs";
import { Snippets, snippetTokens } from "../lookups/snippets.mjs";

const snippetTokensMax = 8_192;
const goalOfFull = 60;
const allMethods = ["nosa", "nosa:64", "infllmv2", "full", "snippets", "none"];
/** They see no more of the repository than its name. */
const withoutContext = ["snippets", "none"];

export async function run(figures, options) {
  const { model: id, threads, keep } = options;
  const methods = options.methods === undefined ? allMethods : String(options.methods).split(",");
  const shard = parseShard(String(options.shard ?? "0/1"));
  const model = await openModel(await modelFile(id), { threads });
  const raw = [];
  for (const size of String(options.sizes ?? "32k,128k").split(",")) {
    const answers = Object.fromEntries(methods.map((method) => [method, []]));
    raw.push({ size, answers });
    const counts = new Map(methods.map((method) => [method, countOf(method, size, options)]));
    const set = lookupSet(size, Math.max(...counts.values()));
    const asked = set.reduce((sum, { questions }) => sum + questions.length, 0);
    for (const { name, files, questions } of set.filter((each) => isWanted(each.name, options))) {
      const own = questions.map((each, at) => ({ ...each, at })).filter(({ at }) => at % shard.of === shard.at);
      if (own.length === 0) continue;
      // Each method the same part of every repository's questions.
      const share = (method) => Math.ceil((counts.get(method) * questions.length) / asked);
      const askers = await openAskers(model, { name, files }, own, { methods, share });
      // What is there when the time is over is to be the same questions of every method.
      for (const [index, { at, definition }] of own.entries()) {
        for (const method of methods.filter((each) => at < share(each))) {
          const { text, exact, nll, tokens } = await askers.get(method).ask(index);
          const place = `${definition.path}:${definition.line}`;
          answers[method].push({ repository: name, place, name: definition.name, at, exact, nll, tokens, text });
        }
        keep(raw);
      }
      await askers.dispose();
      console.log(`  ${name}: ${own.length} asked`);
    }
    if (shard.of === 1 && options.repositories === undefined) report(figures, `${id}, ${size}`, answers);
  }
  await model.dispose();
  return raw;
}

/** The shares of several processes as one. */
export function merge(figures, parts, { model: id }) {
  const bySize = new Map();
  for (const { size, answers } of parts.flat()) {
    const all = bySize.get(size) ?? {};
    bySize.set(size, all);
    for (const [method, own] of Object.entries(answers)) {
      all[method] ??= new Map();
      // A question that was asked again counts once.
      for (const each of own) all[method].set(keyOf(each), each);
    }
  }
  const sizes = [...bySize.keys()].sort((a, b) => parseInt(a, 10) - parseInt(b, 10));
  return sizes.map((size) => {
    const found = Object.entries(bySize.get(size)).sort(([a], [b]) => orderOf(a) - orderOf(b));
    const answers = Object.fromEntries(
      found.map(([method, own]) => [
        method,
        [...own.values()].sort((a, b) => a.at - b.at || (a.place < b.place ? -1 : 1)),
      ]),
    );
    report(figures, `${id}, ${size}`, answers);
    return { size, answers };
  });
}

/** How many questions a method answers. */
function countOf(method, size, options) {
  const all = Number(options.questions ?? 200);
  switch (method) {
    case "infllmv2":
      return Number(options.infllmv2 ?? Math.min(80, all));
    case "full":
      return size === "32k"
        ? Number(options.full ?? Math.min(60, all))
        : Number(options["full-128k"] ?? Math.min(24, all));
    case "snippets":
      return Number(options.snippets ?? Math.min(6, all));
    default:
      return all;
  }
}

/** What asks each method, once for all its questions; the contexts that they need. */
async function openAskers(model, { name, files }, questions, { methods, share }) {
  const askers = new Map();
  const contexts = [];
  const open = async (layout) => {
    contexts.push(await openContext(model, { name, files, layout }));
    return contexts.at(-1);
  };
  const seeing = methods.filter((method) => !withoutContext.includes(method));
  if (seeing.length > 0) {
    const context = await open("segments");
    for (const method of seeing) {
      const asked = method === "nosa" ? withNames(context, questions) : questions;
      askers.set(method, await Asker.open(context, asked, { selection: selectionOf(method) }));
    }
  }
  const blind = methods.filter((method) => withoutContext.includes(method));
  if (blind.length > 0) {
    const nothing = await open("none");
    if (blind.includes("none")) askers.set("none", await Asker.open(nothing, questions));
    if (blind.includes("snippets")) {
      const asked = await withSnippets(
        model,
        files,
        questions.filter(({ at }) => at < share("snippets")),
      );
      if (asked.length > 0) askers.set("snippets", await Asker.open(nothing, asked));
    }
  }
  return {
    get: (method) => askers.get(method),
    async dispose() {
      for (const each of [...askers.values(), ...contexts]) await each.dispose();
    },
  };
}

/** Questions with the blocks that the product has them see. */
function withNames(context, questions) {
  return questions.map((each) => ({ ...each, selection: context.selectionAsked(each.question) }));
}

/** For NativeSequence.select; undefined for all blocks. */
function selectionOf(method) {
  if (method === "full") return undefined;
  const [policy, blocks] = method.split(":");
  const selection = selections[policy];
  if (selection === undefined) throw new Error(`There is no method ${method}.`);
  return blocks === undefined ? selection : { ...selection, totalBlocks: Number(blocks) };
}

/** Questions with the passages that stand before them. */
async function withSnippets(model, files, questions) {
  const snippets = new Snippets(files);
  const asked = [];
  for (const each of questions) {
    asked.push({ ...each, before: await snippetTokens(model, snippets, each.question, snippetTokensMax) });
  }
  return asked;
}

function report(figures, where, answers) {
  for (const [method, own] of Object.entries(answers)) {
    if (own.length === 0) continue;
    const exact = (100 * own.filter((each) => each.exact).length) / own.length;
    const goal = method === "full" ? goalOfFull : null;
    figures.add(`${where}: look-ups, ${method}, generated answer right (${own.length})`, exact, "%", { goal });
    figures.add(`${where}: look-ups, ${method}, right answer forced`, mean(own.map(({ nll }) => nll)), "nats/token");
  }
  for (const method of Object.keys(answers).filter((each) => each !== "nosa")) {
    const pairs = pairsOf(answers.nosa ?? [], answers[method]);
    if (pairs.length === 0) continue;
    const points = bootstrap(pairs.map(([ours, theirs]) => 100 * (Number(ours.exact) - Number(theirs.exact))));
    const nats = bootstrap(pairs.map(([ours, theirs]) => ours.nll - theirs.nll));
    figures.add(`${where}: nosa - ${method}, right ${interval(points)} (${pairs.length})`, points.mean, "points");
    figures.add(`${where}: nosa - ${method}, forced ${interval(nats)}`, nats.mean, "nats/token");
  }
}

function pairsOf(ours, theirs) {
  const known = new Map(ours.map((each) => [keyOf(each), each]));
  return theirs.flatMap((each) => (known.has(keyOf(each)) ? [[known.get(keyOf(each)), each]] : []));
}

/** Repositories of a size may share files. */
function keyOf({ repository, place, at }) {
  return `${repository} ${at} ${place}`;
}

/** Place in a report; other budgets stand behind what they vary. */
function orderOf(method) {
  const at = allMethods.indexOf(method.split(":")[0]);
  return at + (method.includes(":") ? Number(method.split(":")[1]) / 1e6 : 0);
}

function interval({ low, high }) {
  return `[${low.toFixed(2)}, ${high.toFixed(2)}]`;
}
