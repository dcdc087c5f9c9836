// Reads the repositories that the other parts ask about and saves their KV, so that those find it: one share of each, where several processes read side by side.
//
//   --shard I/N     this process's share, from 0 on (0/1)
//   --sizes A,B     of the repositories (32k,128k; 1M is the one of "million")     --repositories A,B  by name (all of these sizes)
import path from "node:path";
import { cacheFolder } from "../lib/cacheFolder.mjs";
import { openModel, readShare } from "../lib/context.mjs";
import { parseShard } from "../lib/options.mjs";
import { modelFile, product } from "../lib/product.mjs";
import { isWanted, lookupSet } from "../lookups/set.mjs";
import { filesOf, keptHome, nameOf } from "./repositories.mjs";

export async function run(figures, options) {
  const { model: id, threads, sizes = "32k,128k", shard = "0/1" } = options;
  const { at, of } = parseShard(String(shard));
  const model = await openModel(await modelFile(id), { threads });
  const start = performance.now();
  console.log(`  ${model.device}`);
  const loads = Array.from({ length: of }, () => 0);
  let tokens = 0;
  for (const size of String(sizes).split(",")) {
    for (const { name, files, home } of repositoriesOf(size).filter((each) => isWanted(each.name, options))) {
      const folder = path.join(product.dataPaths(home).contexts, "segments");
      tokens += await readShare(model, { name, files }, { at, loads, folder });
    }
  }
  await model.dispose();
  figures.add(`tokens read, share ${at} of ${of}`, tokens, "tokens");
  figures.add("reading", (1000 * tokens) / (performance.now() - start), "tokens/s");
  return { tokens };
}

/** Where the engines of the parts keep theirs; the parts without an engine look there too. */
function repositoriesOf(size) {
  if (size === "1M") return [{ name: nameOf(size), files: filesOf(size), home: cacheFolder("home-1M") }];
  return lookupSet(size, 1).map(({ name, files }) => ({ name, files, home: keptHome() }));
}
