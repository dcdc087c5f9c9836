// The product's completion of a case, in this process: its prompt, window, selection, adapter and hiding of old lines.
import { greedy } from "../lib/context.mjs";
import { product } from "../lib/product.mjs";
import { isWhole, lineOf, tokensMax } from "./written.mjs";

const stepsAtOnce = 8;
const suffixTokensMax = (window) => Math.min(96, window / 8);

/**
 * `context` holds the repository, or nothing but the header: then a completion sees its file alone. `window`: most tokens of text before the cursor.
 * Gives `{line, tokens, milliseconds}`: what was written, tokens of the prompt, and how long reading and writing took.
 */
export async function complete(context, { path, before, after }, window) {
  const { model, plans } = context;
  const prompt = await model.text.completion({
    path,
    prefix: before,
    suffix: after.replace(/^\n/, ""),
    prefixTokensMax: window,
    suffixTokensMax: suffixTokensMax(window),
  });
  const { sequence } = await context.tail();
  try {
    const segments = context.segments.length === 0 ? [] : plans.map(recordOf);
    const hidden = product.liveLines(segments, { path, before, after, ...prompt });
    if (segments.length > 0) await sequence.select(product.selectionFor(segments, { ...product.noFocus, hidden }));
    const startedMs = performance.now();
    await sequence.setTokens(prompt.tokens);
    const stream = model.text.decodeStream();
    let text = "";
    for (let steps = 0; steps < tokensMax && !isWhole(text); steps += stepsAtOnce) {
      const drawn = await sequence.decode({
        steps: stepsAtOnce,
        sampling: greedy,
        stopIds: model.text.completionStopIds,
        bannedIds: model.text.bannedIds,
        drafts: true,
      });
      const ids = drawn.steps.map(({ token }) => token).filter((id) => !model.text.completionStopIds.includes(id));
      text += ids.map((id) => stream.push(id)).join("");
      if (drawn.stopped) break;
    }
    const milliseconds = performance.now() - startedMs;
    return { line: lineOf(text), tokens: prompt.tokens.length, milliseconds };
  } finally {
    await sequence.dispose();
  }
}

/** What a context's record keeps of a segment, as far as hiding lines needs it. */
function recordOf({ files, blockLines }) {
  return { files: files.map(({ path }) => path), blockLines };
}
