// The offloaded cache: speed against llama.cpp and against our own dense path, restarts, edits, budgets, look-ups, attribution.
//
//   --only A,B       parts, in this order (all but contexts): contexts, indexing, decode, prefill, restart, edit, overlap, packed, lookups, attribution, budgets, million
//   --threads N      threads of both engines (the number of cores)
//   --models A,B     ids of known models (the quick one and the default one); parts of one model take the last
//   --questions N    look-ups at each size (see bench/cache/lookups.mjs for which method answers how many of them)
//   --llama-tokens N tokens of the prompt that llama.cpp's state keeps (32768); its cost beyond is extrapolated from half of them on
//   --repeat         where llama.cpp's state is missing, repeat the beginning that is kept (at least 4,096 tokens) rather than to prefill it for half an hour
//   --small          everything a sixteenth as large: to try the benchmark, not for figures
//   --merge DIR      no measuring: makes one record of the shares that processes with --shard I/N left in DIR (look-ups and attribution)
//   --results DIR    where each part leaves its figures as JSON (bench/results/cache)
//
// NOSA_BENCH_CUDA=PATH, the library libnosa_cuda.so, puts the sessions of parts without an engine on the GPU.
// What takes long to make is kept in a cache folder outside the checkout (bench/lib/cacheFolder.mjs): llama.cpp's state and our own contexts.
import { mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { shrink } from "./cache/repositories.mjs";
import { cudaLibrary } from "./lib/context.mjs";
import { corpusSources } from "./lib/corpus.mjs";
import { stateTokens } from "./lib/llamaState.mjs";
import { Figures } from "./lib/figures.mjs";

const parts = {
  contexts: () => import("./cache/contexts.mjs"),
  indexing: () => import("./cache/indexing.mjs"),
  decode: () => import("./cache/decode.mjs"),
  prefill: () => import("./cache/prefill.mjs"),
  restart: () => import("./cache/restart.mjs"),
  edit: () => import("./cache/edit.mjs"),
  overlap: () => import("./cache/overlap.mjs"),
  packed: () => import("./cache/packed.mjs"),
  lookups: () => import("./cache/lookups.mjs"),
  attribution: () => import("./cache/attribution.mjs"),
  budgets: () => import("./cache/budgets.mjs"),
  million: () => import("./cache/million.mjs"),
};
const results = fileURLToPath(new URL("./results/cache/", import.meta.url));

export async function run(figures, options) {
  const threads = Number(options.threads ?? os.cpus().length);
  const models = String(options.models ?? "smollm2-135m-instruct,qwen2.5-coder-0.5b-instruct").split(",");
  const llamaTokens = Number(options["llama-tokens"] ?? stateTokens);
  const wanted = String(
    options.only ??
      Object.keys(parts)
        .filter((name) => name !== "contexts")
        .join(","),
  ).split(",");
  const unknown = wanted.filter((name) => !Object.hasOwn(parts, name));
  if (unknown.length > 0) throw new Error(`There is no part ${unknown.join(", ")}.`);
  if (options.small === true) shrink(16);
  const folder = path.resolve(String(options.results ?? results));
  mkdirSync(folder, { recursive: true });
  const where = cudaLibrary === undefined ? "" : ", sessions without an engine on the GPU";
  const machine = `${os.cpus()[0].model}, ${threads} threads${where}`;
  const code = corpusSources().map(({ name, version, license }) => `${name} ${version} (${license})`);
  const date = new Date().toISOString().slice(0, 10);
  console.log(`${machine}. Code: ${code.join(", ")}`);
  for (const name of Object.keys(parts).filter((each) => wanted.includes(each))) {
    console.log(`\n${name}`);
    const own = new Figures((figure) => figures.keep(figure));
    const head = { part: name, date, machine, models, code };
    const keep = (raw) =>
      writeRecord(path.join(folder, `${name}${suffixOf(options)}.json`), { ...head, figures: own.all, raw });
    const part = await parts[name]();
    const told = {
      ...options,
      threads,
      llamaTokens,
      repeat: options.repeat === true,
      models,
      model: models.at(-1),
      keep,
    };
    if (options.merge === undefined) keep(await part.run(own, told));
    else merge(path.resolve(String(options.merge)), path.join(folder, `${name}.json`), { name, part, own, told });
  }
}

/** One record of the shares that several processes left in `folder`. */
function merge(folder, target, { name, part, own, told }) {
  if (part.merge === undefined) throw new Error(`Shares of ${name} cannot be merged.`);
  const shares = readdirSync(folder)
    .filter((file) => file.startsWith(`${name}-`) && /-\d+of\d+\.json$/.test(file))
    .sort()
    .map((file) => JSON.parse(readFileSync(path.join(folder, file), "utf8")));
  if (shares.length === 0) throw new Error(`There are no shares of ${name} in ${folder}.`);
  const [{ part: what, date, models, code }] = shares;
  const machine = [...new Set(shares.map((share) => share.machine))].join("; ");
  const rawShares = shares.map(({ raw }) => raw);
  const raw = part.merge(own, rawShares, { ...told, model: models.at(-1) });
  writeRecord(target, { part: what, date, machine, processes: shares.length, models, code, figures: own.all, raw });
}

/** A part that was told to do less must not write over the whole of it. */
function suffixOf({ sizes, methods, shard }) {
  const told = [sizes, methods, shard?.replace("/", "of")].filter((each) => each !== undefined);
  return told.map((each) => `-${String(each).replaceAll(":", "_")}`).join("");
}

/** Whole or not at all: a process may be stopped while it writes. */
function writeRecord(file, record) {
  // Where the folders lay on this machine tells nobody else anything.
  const text = JSON.stringify(record, (key, value) => (key === "root" ? undefined : value), 1);
  writeFileSync(`${file}.part`, `${text}\n`);
  renameSync(`${file}.part`, file);
}
