// llama.cpp's cost by position: measured up to 32 k tokens, a straight line beyond.
import { openLlamaState } from "../lib/llamaState.mjs";

/** In falling order, as llama.cpp drops what lies behind. The last measurement of 256 tokens ends below 32 k. */
export const positions = [32_256, 24_576, 16_384, 8_192, 4_096, 1];
const curves = new Map();

/** The curve of `modelPath`, measured once a process. `between` runs between measurements, so that others can be measured in turn. */
export async function llamaCurve(modelPath, { threads, between = async () => undefined }) {
  const known = curves.get(modelPath);
  if (known !== undefined) return known;
  const state = await openLlamaState(modelPath, { threads, onNotice: (sentence) => console.log(sentence) });
  const points = [];
  for (const position of positions) {
    points.push(await state.measureAt(position));
    await between();
  }
  await state.dispose();
  const curve = new Curve(points.reverse());
  curves.set(modelPath, curve);
  return curve;
}

class Curve {
  /** `[{position, prefill, decode}]`, rising; milliseconds a token. */
  points;

  constructor(points) {
    this.points = points;
  }

  /** Milliseconds a decoding step at `position`. */
  decodeAt(position) {
    return this.#at(position, "decode");
  }

  /** Milliseconds to process a prompt of `tokens` tokens: the area under the cost of a token by position. */
  prefillOf(tokens) {
    const ends = [0, ...this.points.map((point) => point.position).filter((position) => position < tokens), tokens];
    let sum = 0;
    for (let i = 1; i < ends.length; i += 1) {
      sum += ((ends[i] - ends[i - 1]) * (this.#at(ends[i - 1], "prefill") + this.#at(ends[i], "prefill"))) / 2;
    }
    return sum;
  }

  /** Largest distance of a measured prefill cost from the straight line through 16 k and 32 k, as a share of it, from 8 k on. */
  get bend() {
    const far = this.points.filter(({ position }) => position >= 8_192);
    return Math.max(...far.map((point) => Math.abs(point.prefill / this.#line(point.position, "prefill") - 1)));
  }

  #at(position, kind) {
    const { points } = this;
    const next = points.findIndex((point) => point.position >= position);
    if (next === 0) return points[0][kind];
    if (next < 0) return this.#line(position, kind);
    const [a, b] = [points[next - 1], points[next]];
    return a[kind] + ((b[kind] - a[kind]) * (position - a.position)) / (b.position - a.position);
  }

  #line(position, kind) {
    const a = this.points.find((point) => point.position === 16_384);
    const b = this.points.at(-1);
    return a[kind] + ((b[kind] - a[kind]) * (position - a.position)) / (b.position - a.position);
  }
}
