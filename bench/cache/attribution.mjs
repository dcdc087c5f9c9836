// Whether the lines that an answer is said to draw on hold what was asked for, and whether they are what the answer needs: with the cited blocks masked it
// changes, with as many others masked it does not.
//
//   --attribution N   look-ups (90); the right answers among them count
//   --sizes A         of the repositories (32k)
//   --shard I/N       this process's share of them, from 0 on (0/1)
import { openContext, openModel, selections } from "../lib/context.mjs";
import { parseShard } from "../lib/options.mjs";
import { modelFile, product } from "../lib/product.mjs";
import { Asker } from "../lookups/ask.mjs";
import { measureNeutral } from "../lookups/neutral.mjs";
import { lookupSet } from "../lookups/set.mjs";

const rangesShown = 3;
/** As engine/chat/attribution.ts has it. */
const shareOfBestMin = 0.1;

export async function run(figures, options) {
  const { threads, keep } = options;
  const shard = parseShard(String(options.shard ?? "0/1"));
  const model = await openModel(await modelFile(options.model), { threads });
  const answers = [];
  const raw = { asked: 0, answers };
  for (const { name, files, questions: all } of lookupSet(sizeOf(options), Number(options.attribution ?? 90))) {
    const own = all.filter((_, at) => at % shard.of === shard.at);
    if (own.length === 0) continue;
    const context = await openContext(model, { name, files });
    const questions = own.map((each) => ({ ...each, selection: context.selectionAsked(each.question) }));
    const neutral = await measureNeutral(context, selections.nosa);
    const asker = await Asker.open(context, questions, { selection: selections.nosa });
    for (const [index, { definition, selection }] of questions.entries()) {
      keep(raw);
      raw.asked += 1;
      const answer = await asker.ask(index, { masses: true });
      if (!answer.exact) continue;
      const ranges = product.references(answer.masses, context.plans, {
        countMax: rangesShown,
        neutral,
        shareOfBestMin,
      });
      const cited = blocksOf(context.plans, ranges);
      const others = otherBlocks(context.plans, cited, index);
      const withoutCited = await asker.ask(index, { selection: masking(selection, cited) });
      const withoutOthers = await asker.ask(index, { selection: masking(selection, others) });
      answers.push({
        name: definition.name,
        place: `${definition.path}:${definition.line}`,
        ranges,
        found: ranges.findIndex(
          ({ path, startLine, endLine }) =>
            path === definition.path && startLine <= definition.line && endLine >= definition.line,
        ),
        blocks: cited.length,
        changedWithoutCited: !withoutCited.exact,
        changedWithoutOthers: !withoutOthers.exact,
        nll: [answer.nll, withoutCited.nll, withoutOthers.nll],
      });
    }
    await asker.dispose();
    await context.dispose();
  }
  await model.dispose();
  if (shard.of === 1) report(figures, raw, options);
  return raw;
}

/** The shares of several processes as one. */
export function merge(figures, parts, options) {
  const whole = {
    asked: parts.reduce((sum, { asked }) => sum + asked, 0),
    answers: parts.flatMap(({ answers }) => answers).sort((a, b) => (a.place < b.place ? -1 : 1)),
  };
  report(figures, whole, options);
  return whole;
}

function sizeOf({ sizes }) {
  return String(sizes ?? "32k");
}

function report(figures, { asked, answers }, options) {
  const share = (holds) => (100 * answers.filter(holds).length) / answers.length;
  const mean = (of) => answers.reduce((sum, each) => sum + of(each), 0) / answers.length;
  figures.add(`${options.model}, ${sizeOf(options)}: right look-ups (of ${asked})`, answers.length, "answers");
  figures.add(
    "definition within the first range",
    share(({ found }) => found === 0),
    "%",
  );
  figures.add(
    "definition within the first three ranges",
    share(({ found }) => found >= 0),
    "%",
    { goal: 80 },
  );
  figures.add(
    "lines of the three ranges, mean",
    mean(({ ranges }) => ranges.reduce((sum, { startLine, endLine }) => sum + endLine - startLine + 1, 0)),
    "lines",
  );
  figures.add(
    "blocks they stand for, mean",
    mean(({ blocks }) => blocks),
    "blocks",
  );
  figures.add(
    "answers that change with these blocks masked",
    share((each) => each.changedWithoutCited),
    "%",
    { goal: 80 },
  );
  figures.add(
    "answers that change with as many others masked",
    share((each) => each.changedWithoutOthers),
    "%",
    { goal: 20, better: "lower" },
  );
  for (const [at, what] of ["nothing masked", "these masked", "others masked"].entries()) {
    figures.add(
      `right answer forced, ${what}`,
      mean(({ nll }) => nll[at]),
      "nats/token",
    );
  }
}

/** Blocks that have lines of the ranges: `[{sequence, block}]`. */
function blocksOf(plans, ranges) {
  return plans.flatMap(({ blockLines }, at) =>
    blockLines.flatMap((spans, block) => {
      const isCited = spans.some((span) =>
        ranges.some(
          ({ path, startLine, endLine }) =>
            span.path === path && span.startLine <= endLine && span.endLine >= startLine,
        ),
      );
      return isCited ? [{ sequence: at + 1, block }] : [];
    }),
  );
}

/** As many blocks that are not cited, drawn the same way every time. */
function otherBlocks(plans, cited, seed) {
  const taken = new Set(cited.map(({ sequence, block }) => `${sequence} ${block}`));
  const free = plans
    .flatMap(({ blockLines }, at) => blockLines.map((_, block) => ({ sequence: at + 1, block })))
    .filter(({ sequence, block }) => !taken.has(`${sequence} ${block}`));
  let state = seed + 1;
  return cited.flatMap(() => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return free.splice(Math.floor((state / 2 ** 32) * free.length), 1);
  });
}

function masking(selection, blocks) {
  return {
    ...selection,
    masked: blocks.map(({ sequence, block }) => ({ sequence, from: block, to: block + 1 })),
  };
}
