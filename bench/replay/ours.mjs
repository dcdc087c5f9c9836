// The product's completion of a case, in this process: its prompt, window, selection, adapter and hiding of old lines.
import { greedy } from "../lib/context.mjs";
import { product } from "../lib/product.mjs";
import { passagesNear, segmentsOf, textOf, wordsAround } from "./passages.mjs";
import { isWhole, lineOf, tokensMax } from "./written.mjs";

const stepsAtOnce = 8;

/**
 * `context` holds the repository, or nothing but the header: then a completion sees its file alone. `window`: most tokens of text before the cursor.
 * `way`: what differs from the product (bench/replay/variants.mjs). Gives `{line, tokens, milliseconds, logprob}`: what was written, tokens of the prompt, how
 * long reading and writing took, and the log-probability of what was written.
 */
export async function complete(context, { path, before, after }, window, way) {
  const { model, plans } = context;
  const around = {
    path,
    prefix: before,
    suffix: product.textBehind(after, model.text.completionOrder),
    prefixTokensMax: way.prefix ?? window,
    suffixTokensMax: way.suffix ?? product.suffixTokensFor(window, model.text.completionOrder),
  };
  const prompt = await model.text.completion(around);
  const records = plans.map(recordOf);
  const live = product.liveLines(records, { path, before, after, ...prompt });
  const hidden = way.hidesFile === true ? [{ path, startLine: 0, endLine: 0 }] : live;
  const passages = (passagesMax) => passagesOf(context, { before, after, hidden, passagesMax });
  const tokens = [...(way.near === undefined ? [] : await pasted(context, passages(way.near))), ...prompt.tokens];
  const { sequence } = await context.tail();
  try {
    if (context.segments.length > 0) {
      const named = way.pinned === undefined ? [] : passages(way.pinned);
      const selection = { ...product.selectionFor(records, { ...product.noFocus, hidden, named }), ...way.selection };
      await sequence.select(way.alone === true ? { ...selection, masked: allBut(records, named) } : selection);
    }
    const startedMs = performance.now();
    await sequence.setTokens(Uint32Array.from(tokens));
    const stream = model.text.decodeStream();
    let text = "";
    let logprob = 0;
    for (let steps = 0; steps < tokensMax && !isWhole(text); steps += stepsAtOnce) {
      const drawn = await sequence.decode({
        steps: stepsAtOnce,
        sampling: greedy,
        stopIds: model.text.completionStopIds,
        bannedIds: model.text.bannedIds,
        drafts: true,
      });
      for (const { token, logprob: own } of drawn.steps) {
        // What stands behind the line was written in the same go and counts for nothing.
        if (!isWhole(text)) logprob += own;
        if (!model.text.completionStopIds.includes(token)) text += stream.push(token);
      }
      if (drawn.stopped) break;
    }
    const milliseconds = performance.now() - startedMs;
    return { line: lineOf(text), tokens: tokens.length, milliseconds, logprob };
  } finally {
    await sequence.dispose();
  }
}

/** What a context's record keeps of a segment, as far as hiding lines needs it. */
function recordOf({ contentKey: key, files, blockLines }) {
  return { key, files: files.map(({ path }) => path), blockLines };
}

const known = new WeakMap();

function textsOf(context) {
  if (!known.has(context)) known.set(context, segmentsOf(context));
  return known.get(context);
}

function passagesOf(context, { before, after, hidden, passagesMax }) {
  const isHidden = (span) =>
    hidden.some(
      ({ path, startLine, endLine }) =>
        path === span.path && (endLine === 0 || (startLine <= span.endLine && endLine >= span.startLine)),
    );
  return passagesNear(wordsAround(before, after), textsOf(context), { passagesMax, isHidden });
}

/** Each as a file of its own, the most alike last. */
async function pasted(context, passages) {
  const never = new AbortController().signal;
  const tokens = [];
  for (const passage of [...passages].reverse()) {
    const text = textOf(textsOf(context), passage);
    if (text.trim() === "") continue;
    const file = await context.model.text.file(passage.path, text, never);
    tokens.push(...file.headerTokens, ...file.tokens);
  }
  return tokens;
}

/** Every block that no passage holds. */
function allBut(records, passages) {
  return records.flatMap(({ key, blockLines }, index) => {
    const ranges = [];
    let from = 0;
    const end = { from: blockLines.length, to: blockLines.length };
    const own = passages.filter((passage) => passage.key === key).sort((a, b) => a.from - b.from);
    for (const passage of [...own, end]) {
      if (passage.from > from) ranges.push({ sequence: index + 1, from, to: passage.from });
      from = passage.to;
    }
    return ranges;
  });
}
