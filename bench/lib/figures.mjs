// Figures of a benchmark: collected, printed beside their goals, written as JSON, judged.
import { writeFileSync } from "node:fs";

/**
 * One figure. `goal` is null where a figure is only reported.
 * @typedef {{name: string, value: number, unit: string, goal: number | null, better: "higher" | "lower"}} Figure
 */

export class Figures {
  /** @type {Figure[]} */
  #all = [];
  #onFigure;

  /** `onFigure` is given every figure that is added, for a whole of which this is a part. */
  constructor(onFigure = () => undefined) {
    this.#onFigure = onFigure;
  }

  get all() {
    return this.#all;
  }

  /** Adds a figure and prints it at once, so that a long run can be watched. */
  add(name, value, unit, { goal = null, better = "higher" } = {}) {
    const figure = { name, value: round(value), unit, goal, better };
    this.keep(figure);
    console.log(lineOf(figure));
    return figure;
  }

  /** Adds a figure that was printed already. */
  keep(figure) {
    this.#all.push(figure);
    this.#onFigure(figure);
  }

  /** Figures that have a goal and are short of it. */
  get short() {
    return this.#all.filter((figure) => !reached(figure));
  }

  /** Writes the figures to `path` as `[{"name","value","unit","goal","better"}]`. */
  write(path) {
    writeFileSync(path, `${JSON.stringify(this.#all, null, 2)}\n`);
  }
}

/** Middle value; the mean of the two middle ones for an even count. */
export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Smallest value that at least `share` (0 to 1) of the values do not exceed. */
export function percentile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)];
}

export function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** `{mean, low, high}`: mean of paired differences and its 95 % bootstrap interval, the same for the same differences. */
export function bootstrap(differences, rounds = 4000) {
  let state = 0x9e3779b9;
  const draw = () => {
    // xorshift32: any fixed sequence does.
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
  const means = Array.from({ length: rounds }, () =>
    mean(differences.map(() => differences[Math.floor(draw() * differences.length)])),
  );
  return { mean: mean(differences), low: percentile(means, 0.025), high: percentile(means, 0.975) };
}

function reached({ value, goal, better }) {
  if (goal === null) return true;
  return better === "higher" ? value >= goal : value <= goal;
}

function lineOf(figure) {
  const goal = figure.goal === null ? "" : `  (goal ${figure.better === "higher" ? ">=" : "<="} ${figure.goal})`;
  const mark = figure.goal === null ? " " : reached(figure) ? "+" : "-";
  return `${mark} ${figure.name.padEnd(64)} ${String(figure.value).padStart(10)} ${figure.unit}${goal}`;
}

function round(value) {
  return Number(value.toPrecision(4));
}
