// Definitions asked for by name over 32 k and 128 k tokens of real code: selection, no selection, and the 8 k tokens of passages that a search finds.
//
// Every method answers the same questions with the same model and adapter, from the first on; the slow ones answer fewer of them. Differences are over the
// questions that both answered, with 95 % bootstrap intervals.
//
//   --sizes A,B     of the repositories (32k,128k)
//   --questions N   for nosa and with no repository at all, at each size (200)
//   --infllmv2 N    (80)   --full N   (60)   --full-128k N   (24)   --snippets N   (6)
import { bootstrap } from "../lib/figures.mjs";
import { openContext, openModel, selections } from "../lib/context.mjs";
import { modelFile } from "../lib/product.mjs";
import { Asker } from "../lookups/ask.mjs";
import { lookupSet } from "../lookups/set.mjs";
import { Snippets, snippetTokens } from "../lookups/snippets.mjs";

const snippetTokensMax = 8_192;
const goalOfFull = 60;

export async function run(figures, options) {
  const { model: id, threads } = options;
  const model = await openModel(await modelFile(id), { threads });
  const raw = [];
  for (const size of String(options.sizes ?? "32k,128k").split(",")) {
    const counts = {
      nosa: Number(options.questions ?? 200),
      infllmv2: Number(options.infllmv2 ?? 80),
      full: size === "32k" ? Number(options.full ?? 60) : Number(options["full-128k"] ?? 24),
      snippets: Number(options.snippets ?? 6),
    };
    const answers = { nosa: [], infllmv2: [], full: [], snippets: [], none: [] };
    const set = lookupSet(size, counts.nosa);
    for (const { name, files, questions } of set) {
      const context = await openContext(model, { name, files });
      for (const method of ["nosa", "infllmv2", "full"]) {
        const share = Math.ceil(counts[method] / set.length);
        answers[method].push(...(await answer(context, questions.slice(0, share), selections[method])));
      }
      await context.dispose();
      const nothing = await openContext(model, { name, files, layout: "none" });
      answers.none.push(...(await answer(nothing, questions, undefined)));
      const asked = await withSnippets(model, files, questions.slice(0, Math.ceil(counts.snippets / set.length)));
      answers.snippets.push(...(await answer(nothing, asked, undefined)));
      await nothing.dispose();
      console.log(`  ${name}: ${answers.nosa.length} of ${counts.nosa}`);
    }
    report(figures, `${id}, ${size}`, answers);
    raw.push({ size, answers });
  }
  await model.dispose();
  return raw;
}

async function answer(context, questions, selection) {
  if (questions.length === 0) return [];
  const asker = await Asker.open(context, questions, { selection });
  const answers = [];
  for (const [index, { definition }] of questions.entries()) {
    const { text, exact, nll, tokens } = await asker.ask(index);
    answers.push({ place: `${definition.path}:${definition.line}`, name: definition.name, exact, nll, tokens, text });
  }
  await asker.dispose();
  return answers;
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
    figures.add(`${where}: look-ups, ${method}, right answer forced`, meanOf(own.map(({ nll }) => nll)), "nats/token");
  }
  for (const method of ["infllmv2", "full", "snippets", "none"]) {
    const pairs = pairsOf(answers.nosa, answers[method]);
    if (pairs.length === 0) continue;
    const points = bootstrap(pairs.map(([ours, theirs]) => 100 * (Number(ours.exact) - Number(theirs.exact))));
    const nats = bootstrap(pairs.map(([ours, theirs]) => ours.nll - theirs.nll));
    figures.add(`${where}: nosa - ${method}, right ${interval(points)} (${pairs.length})`, points.mean, "points");
    figures.add(`${where}: nosa - ${method}, forced ${interval(nats)}`, nats.mean, "nats/token");
  }
}

function pairsOf(ours, theirs) {
  const byPlace = new Map(ours.map((each) => [each.place, each]));
  return theirs.flatMap((each) => (byPlace.has(each.place) ? [[byPlace.get(each.place), each]] : []));
}

function interval({ low, high }) {
  return `[${low.toFixed(2)}, ${high.toFixed(2)}]`;
}

function meanOf(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
