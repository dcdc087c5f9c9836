/** The engine's process as it ships, bundled into a temporary folder; also as another version of itself. */

import * as fs from "node:fs";
import * as path from "node:path";
import { adapterNames } from "../../scripts/build.mjs";
import { build as esbuild, type Plugin } from "esbuild";

const project = path.resolve(__dirname, "../..");

export interface EngineBundle {
  readonly engineFile: string;
  readonly cliFile: string;
}

/** Bundles into `folder`, with addon and adapters. `version` takes the place of the manifest's, `build` of the time. */
export async function bundleEngine(folder: string, version?: string, build = Date.now()): Promise<EngineBundle> {
  await esbuild({
    absWorkingDir: project,
    bundle: true,
    platform: "node",
    format: "cjs",
    target: "node20",
    logLevel: "error",
    mainFields: ["module", "main"],
    external: ["*.node"],
    define: { "import.meta.url": "__bundleUrl", __nosaBuild: String(build) },
    banner: { js: 'const __bundleUrl = require("node:url").pathToFileURL(__filename).href;' },
    entryPoints: [
      { in: "engine/main.ts", out: "engine" },
      { in: "engine/cli.ts", out: "cli" },
      { in: "engine/tokenizer/tokenizerWorker.ts", out: "tokenizerWorker" },
    ],
    outdir: folder,
    plugins: version === undefined ? [] : [asVersion(version)],
  });
  const addon = path.join(project, "dist/nosa.node");
  if (fs.existsSync(addon)) fs.copyFileSync(addon, path.join(folder, "nosa.node"));
  for (const name of adapterNames()) {
    fs.mkdirSync(path.join(folder, "adapters"), { recursive: true });
    const file = path.join(project, "adapters", name, "adapter.safetensors");
    fs.copyFileSync(file, path.join(folder, "adapters", `${name}.safetensors`));
  }
  return { engineFile: path.join(folder, "engine.js"), cliFile: path.join(folder, "cli.js") };
}

function asVersion(version: string): Plugin {
  return {
    name: "version",
    setup: ({ onLoad }) => {
      onLoad({ filter: /[\\/]package\.json$/ }, ({ path: file }) =>
        file === path.join(project, "package.json")
          ? { contents: JSON.stringify({ version }), loader: "json" }
          : undefined,
      );
    },
  };
}
