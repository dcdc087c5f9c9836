// llama.cpp's cost by position, up to 32 k tokens.
import { Curve } from "../lib/curve.mjs";
import { openLlamaState, stateTokens } from "../lib/llamaState.mjs";
import { shrunk } from "./repositories.mjs";

/** In falling order, as llama.cpp drops what lies behind. The last measurement of 256 tokens ends below 32 k. */
const positions = [32_256, 24_576, 16_384, 8_192, 4_096, 1];
const curves = new Map();

/** The curve of `modelPath`, measured once a process. `between` runs between measurements, so that others can be measured in turn. */
export async function llamaCurve(modelPath, { threads, between = async () => undefined }) {
  const known = curves.get(modelPath);
  if (known !== undefined) return known;
  const onNotice = (sentence) => console.log(sentence);
  const state = await openLlamaState(modelPath, { threads, tokens: shrunk(stateTokens), onNotice });
  const points = [];
  for (const position of positions) {
    points.push(await state.measureAt(Math.max(1, shrunk(position))));
    await between();
  }
  await state.dispose();
  const curve = new Curve(points.reverse(), shrunk(16_384));
  curves.set(modelPath, curve);
  return curve;
}
