/** The engine's process as it ships, bundled into a temporary folder; also as another version of itself. */

import * as fs from "node:fs";
import * as path from "node:path";
import { build, type Plugin } from "esbuild";

const project = path.resolve(__dirname, "../..");

export interface EngineBundle {
  readonly engineFile: string;
  readonly cliFile: string;
}

/** Bundles into `folder`. `version` takes the place of the manifest's. The addon is linked where it is built. */
export async function bundleEngine(folder: string, version?: string): Promise<EngineBundle> {
  await build({
    absWorkingDir: project,
    bundle: true,
    platform: "node",
    format: "cjs",
    target: "node20",
    logLevel: "error",
    mainFields: ["module", "main"],
    external: ["*.node"],
    define: { "import.meta.url": "__bundleUrl" },
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
