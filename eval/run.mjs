// npm run eval -- NAME [--json FILE] [options of the evaluation]
//
// Evaluates answers, not speed: prints figures beside their goals and exits 1 when one is short of its goal.
import { Figures } from "../bench/lib/figures.mjs";
import { parseOptions } from "../bench/lib/options.mjs";

const evaluations = {
  fim: () => import("./fim.mjs"),
  infilling: () => import("./infilling.mjs"),
  quality: () => import("./quality.mjs"),
};

const [name, ...rest] = process.argv.slice(2);
if (!Object.hasOwn(evaluations, name ?? "")) {
  console.error(`Say which evaluation: ${Object.keys(evaluations).join(", ")}.`);
  process.exit(2);
}
const options = parseOptions(rest);
const figures = new Figures();
const { run } = await evaluations[name]();
await run(figures, options);
for (const { name: short, value, goal, unit } of figures.short) {
  console.error(`Short of its goal: ${short} is ${value} ${unit}, not ${goal}.`);
}
process.exit(figures.short.length === 0 ? 0 : 1);
