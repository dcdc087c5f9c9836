// Reads the repositories that the other parts ask about and saves their KV, so that those find it: one share of each, where several processes read side by side.
//
//   --shard I/N     this process's share, from 0 on (0/1)
//   --sizes A,B     of the repositories (32k,128k; 1M is the one of "million")     --repositories A,B  by name (all of these sizes)
//   --check N       reads nothing: computes N saved segments of each repository anew and says how far apart what follows them is
import path from "node:path";
import { cacheFolder } from "../lib/cacheFolder.mjs";
import { compareShare, openModel, readShare } from "../lib/context.mjs";
import { percentile } from "../lib/figures.mjs";
import { parseShard } from "../lib/options.mjs";
import { modelFile, product } from "../lib/product.mjs";
import { isWanted, lookupSet } from "../lookups/set.mjs";
import { filesOf, keptHome, nameOf } from "./repositories.mjs";

export async function run(figures, options) {
  const { model: id, threads, shard = "0/1" } = options;
  const { at, of } = parseShard(String(shard));
  const model = await openModel(await modelFile(id), { threads });
  const start = performance.now();
  console.log(`  ${model.device}`);
  if (options.check !== undefined) return check(figures, model, options);
  const loads = Array.from({ length: of }, () => 0);
  let tokens = 0;
  for (const { name, files, home } of repositoriesAsked(options)) {
    const folder = path.join(product.dataPaths(home).contexts, "segments");
    tokens += await readShare(model, { name, files }, { at, loads, folder });
  }
  await model.dispose();
  figures.add(`tokens read, share ${at} of ${of}`, tokens, "tokens");
  figures.add("reading", (1000 * tokens) / (performance.now() - start), "tokens/s");
  return { tokens };
}

async function check(figures, model, options) {
  const all = [];
  for (const { name, files, home } of repositoriesAsked(options)) {
    const folder = path.join(product.dataPaths(home).contexts, "segments");
    const compared = await compareShare(model, { name, files }, { count: Number(options.check), folder });
    const { segments, tokens, differences } = compared;
    all.push({ name, ...compared });
    if (segments === 0) continue;
    const what = `${name}: ${segments} segments, ${tokens} tokens, computed anew: log-probabilities behind them differ by`;
    figures.add(`${what}, p50`, percentile(differences, 0.5), "nats");
    figures.add(`${what}, p99`, percentile(differences, 0.99), "nats");
    figures.add(`${what}, most`, Math.max(...differences), "nats");
  }
  await model.dispose();
  return all;
}

function repositoriesAsked(options) {
  const sizes = String(options.sizes ?? "32k,128k").split(",");
  return sizes.flatMap(repositoriesOf).filter((each) => isWanted(each.name, options));
}

/** Where the engines of the parts keep theirs; the parts without an engine look there too. */
function repositoriesOf(size) {
  if (size === "1M") return [{ name: nameOf(size), files: filesOf(size), home: cacheFolder("home-1M") }];
  return lookupSet(size, 1).map(({ name, files }) => ({ name, files, home: keptHome() }));
}
