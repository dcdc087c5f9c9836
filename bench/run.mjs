// npm run bench -- NAME [--json [FILE]] [options of the benchmark]
//
// Runs one benchmark, prints its figures beside their goals and exits 1 when one is short of its goal. --json writes them to a file, or at the end of the
// output when none is named.
import { Figures } from "./lib/figures.mjs";
import { parseOptions } from "./lib/options.mjs";

const benchmarks = {
  cache: () => import("./cache.mjs"),
  cpu: () => import("./cpu.mjs"),
  editor: () => import("./editor.mjs"),
  engine: () => import("./engine.mjs"),
  gpu: () => import("./gpu.mjs"),
  replay: () => import("./replay.mjs"),
};

const [name, ...rest] = process.argv.slice(2);
if (!Object.hasOwn(benchmarks, name ?? "")) {
  console.error(`Say which benchmark: ${Object.keys(benchmarks).join(", ")}.`);
  process.exit(2);
}
const options = parseOptions(rest);
const figures = new Figures();
const { run } = await benchmarks[name]();
await run(figures, options);
if (options.json === true) console.log(JSON.stringify(figures.all));
else if (options.json !== undefined) figures.write(options.json);
for (const { name: short, value, goal, unit } of figures.short) {
  console.error(`Short of its goal: ${short} is ${value} ${unit}, not ${goal}.`);
}
process.exit(figures.short.length === 0 ? 0 : 1);
