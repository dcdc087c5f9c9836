// llama.cpp's cost by position, up to 32 k tokens.
import { Curve } from "../lib/curve.mjs";
import { openLlamaState, stateTokens } from "../lib/llamaState.mjs";
import { shrunk } from "./repositories.mjs";

/** Parts of the prompt that is kept, in falling order, as llama.cpp drops what lies behind. */
const parts = [1, 3 / 4, 1 / 2, 1 / 4, 1 / 8, 0];
/** Room for a measurement at the very end. */
const marginTokens = 512;

/** The curve of `modelPath`, with `tokens` tokens behind it at most; `isReal` says whether they are one prompt. `between` runs between measurements, so that others can be measured in turn. */
export async function llamaCurve(
  modelPath,
  { threads, tokens = stateTokens, repeat = false, between = async () => undefined },
) {
  const onNotice = (sentence) => console.log(sentence);
  const state = await openLlamaState(modelPath, { threads, tokens: shrunk(tokens), repeat, onNotice });
  const points = [];
  for (const part of parts) {
    const position = Math.min(shrunk(part * tokens), shrunk(tokens) - shrunk(marginTokens));
    points.push(await state.measureAt(Math.max(1, position)));
    await between();
  }
  await state.dispose();
  return Object.assign(new Curve(points.reverse(), shrunk(tokens / 2)), { isReal: state.isReal });
}
