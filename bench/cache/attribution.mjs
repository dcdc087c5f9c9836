// Whether the lines that an answer is said to draw on hold what was asked for, and whether they are what the answer needs: with the cited blocks masked it
// changes, with as many others masked it does not.
//
//   --attribution N   look-ups (90); the right answers among them count
//   --sizes A         of the repositories (32k)
import { openContext, openModel, selections } from "../lib/context.mjs";
import { modelFile, product } from "../lib/product.mjs";
import { Asker } from "../lookups/ask.mjs";
import { measureNeutral } from "../lookups/neutral.mjs";
import { lookupSet } from "../lookups/set.mjs";

const rangesShown = 3;
/** As engine/chat/attribution.ts has it. */
const shareOfBestMin = 0.1;

export async function run(figures, options) {
  const { model: id, threads } = options;
  const model = await openModel(await modelFile(id), { threads });
  const raw = [];
  const size = String(options.sizes ?? "32k");
  for (const { name, files, questions } of lookupSet(size, Number(options.attribution ?? 90))) {
    const context = await openContext(model, { name, files });
    const neutral = await measureNeutral(context, selections.nosa);
    const asker = await Asker.open(context, questions, { selection: selections.nosa });
    for (const [index, { definition }] of questions.entries()) {
      const answer = await asker.ask(index, { masses: true });
      if (!answer.exact) continue;
      const ranges = product.references(answer.masses, context.plans, {
        countMax: rangesShown,
        neutral,
        shareOfBestMin,
      });
      const cited = blocksOf(context.plans, ranges);
      const others = otherBlocks(context.plans, cited, index);
      const withoutCited = await asker.ask(index, { selection: masking(cited) });
      const withoutOthers = await asker.ask(index, { selection: masking(others) });
      raw.push({
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

  const share = (holds) => (100 * raw.filter(holds).length) / raw.length;
  const mean = (of) => raw.reduce((sum, each) => sum + of(each), 0) / raw.length;
  figures.add(`${id}, ${size}: right look-ups (of ${Number(options.attribution ?? 90)})`, raw.length, "answers");
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
  return raw;
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

function masking(blocks) {
  return {
    ...selections.nosa,
    masked: blocks.map(({ sequence, block }) => ({ sequence, from: block, to: block + 1 })),
  };
}
