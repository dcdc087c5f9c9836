/**
 * The tokenizer as the product runs it, in its worker, with the worker and a metadata reader bundled into a temporary folder.
 */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import * as path from "node:path";
import { build } from "esbuild";
import { Tokenizer } from "../../engine/tokenizer/tokenizer";

export interface TokenizerWorkshop {
  open(modelPath: string): Promise<Tokenizer>;
  dispose(): Promise<void>;
}

export async function tokenizerWorkshop(): Promise<TokenizerWorkshop> {
  const folder = await mkdtemp(path.join(tmpdir(), "nosa-tokenizer-"));
  const workerPath = path.join(folder, "tokenizerWorker.js");
  const addonPath = path.join(folder, "ggufHeader.js");
  const common = { bundle: true, platform: "node", format: "cjs", target: "node20", logLevel: "error" } as const;
  await build({ ...common, entryPoints: [path.resolve("engine/tokenizer/tokenizerWorker.ts")], outfile: workerPath });
  await build({ ...common, entryPoints: [path.resolve("test/support/ggufHeader.ts")], outfile: addonPath });
  const opened: Tokenizer[] = [];
  return {
    open: async (modelPath) => {
      const tokenizer = await Tokenizer.open(modelPath, { workerPath, addonPath });
      opened.push(tokenizer);
      return tokenizer;
    },
    dispose: async () => {
      await Promise.all(opened.map((tokenizer) => tokenizer.dispose()));
      await rm(folder, { recursive: true, force: true });
    },
  };
}
