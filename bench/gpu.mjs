// The GPU: builds, checks and measures the CUDA part on whatever GPU is there. All of it is done by bench/gpu/run.sh, which
// needs no Node; here its lines become figures. Goals are those of one H200.
import { mkdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { ensureCudaToolkit } from "../scripts/lib/cudaToolkit.mjs";
import { checkoutCache, inRoot } from "../scripts/lib/paths.mjs";
import { run as runProgram, versionOf } from "../scripts/lib/run.mjs";

/** Which value of which line is held against which goal. */
const goals = [
  {
    figure: "gather",
    when: (line) => line.blocks >= 256,
    key: "of the pinned copy",
    unit: "",
    goal: 0.9,
    better: "higher",
  },
  {
    figure: "decode 8B",
    when: (line) => line.cache === "host, 128 slots",
    key: "over resident",
    unit: "x",
    goal: 1.1,
    better: "lower",
  },
  {
    figure: "decode 8B",
    when: (line) => line.cache === "host, 128 slots",
    key: "share of the byte limit",
    unit: "",
    goal: 0.75,
    better: "higher",
  },
  ...[
    ["decode over 512 tokens", 1],
    ["decode over 32 k", 1.5],
    ["prefill of 8 k", 0.8],
    ["indexing 32 k", 1.5],
  ].map(([task, goal]) => ({
    figure: "beside llama.cpp",
    when: (line) => line.task === task,
    key: "ratio",
    unit: "x",
    goal,
    better: "higher",
  })),
  {
    figure: "decode 8B",
    when: (line) => "resume to first token ms" in line,
    key: "resume to first token ms",
    unit: "ms",
    goal: 50,
    better: "lower",
  },
];

export async function run(figures, options) {
  if ((await versionOf("nvidia-smi", ["-L"])) === undefined) throw new Error("There is no NVIDIA GPU here.");
  const { toolkit, why } = await ensureCudaToolkit();
  if (toolkit === undefined) throw new Error(`The CUDA part cannot be built: ${why}.`);
  const folder = path.join(checkoutCache, "native", "gpu-bench");
  mkdirSync(folder, { recursive: true });
  const json = path.join(folder, "figures.json");
  const what = typeof options.only === "string" ? options.only.split(",") : ["gather", "decode-8b", "many"];
  const more = ["model", "tokens", "context", "steps", "layers", "host-gib", "llama-bench"].flatMap((name) =>
    typeof options[name] === "string" ? [`--${name}`, options[name]] : [],
  );
  await runProgram("bash", [inRoot("bench/gpu/run.sh"), folder, ...what, ...more, "--json", json], {
    log: "gpu-bench",
    env: { NVCC: toolkit.nvcc },
    onText: (text) => process.stdout.write(text),
  });
  const lines = JSON.parse(readFileSync(json, "utf8"));
  for (const line of lines) addFigures(figures, line);
  // As many sequences as fit: the best point counts.
  const over = lines.filter((line) => line.method === "nosa, 128 slots").map((line) => line["over full"]);
  if (over.length > 0) {
    figures.add("many sequences: nosa over full, best point", Math.max(...over), "x", { goal: 5.04, better: "higher" });
  }
}

/** Every number of a line; those that have one beside their goal. */
function addFigures(figures, line) {
  const place = Object.entries(line).filter(([, value]) => typeof value === "string");
  const name = place.map(([, value]) => value).join(", ");
  for (const [key, value] of Object.entries(line)) {
    if (typeof value !== "number") continue;
    const judged = goals.find((each) => line.figure.startsWith(each.figure) && each.key === key && each.when(line));
    if (judged === undefined) figures.add(`${name}: ${key}`, value, "");
    else figures.add(`${name}: ${key}`, value, judged.unit, { goal: judged.goal, better: judged.better });
  }
}
