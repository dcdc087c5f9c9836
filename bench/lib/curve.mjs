// The cost of a token by its position: measured at some positions, a straight line beyond.

export class Curve {
  /** `[{position, prefill, decode}]`, rising; milliseconds a token. */
  points;
  #lineFrom;

  /** The line beyond the last point goes through it and the one at `lineFrom`. */
  constructor(points, lineFrom = 16_384) {
    this.points = points;
    this.#lineFrom = lineFrom;
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

  /** Largest distance of a measured prefill cost from the straight line through the same two points, as a share of it, from half of the first on. */
  get bend() {
    const far = this.points.filter(({ position }) => position >= this.#lineFrom / 2);
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
    const a = this.points.find((point) => point.position === this.#lineFrom);
    const b = this.points.at(-1);
    return a[kind] + ((b[kind] - a[kind]) * (position - a.position)) / (b.position - a.position);
  }
}
