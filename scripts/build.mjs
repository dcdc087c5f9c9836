// Bundles the extension, the engine, the terminal program and the web view into dist/, and puts the addon beside them.
//
//   node scripts/build.mjs            one build
//   node scripts/build.mjs --watch    rebuilds as files change
import { copyFileSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { build, context } from "esbuild";
import { cudaLibraryName } from "./build-cuda.mjs";
import { checkoutCache, inRoot } from "./lib/paths.mjs";
import { filesUnder } from "./lib/stamp.mjs";

const addonSource = inRoot("build/Release/nosa.node");
const dist = inRoot("dist");

/** Native files have builds of their own. */
const nativeFiles = ["nosa.node", cudaLibraryName];

/** Tells an engine that still runs from one that was built later with the same version. */
const builtAtMs = Date.now();

/** What went into each bundle of the last build. */
export const inputsFile = path.join(checkoutCache, "bundle-inputs.json");

/** Most bytes a bundle may have: a library that slips in by accident shows here first. */
const kilobytesMax = {
  "extension.js": 200,
  "connection.js": 600,
  "engine.js": 900,
  "cli.js": 900,
  "media/chat.js": 400,
  "media/chat.css": 40,
  "media/contextMap.js": 40,
  "media/contextMap.css": 20,
};

const shared = {
  absWorkingDir: inRoot(),
  bundle: true,
  logLevel: "warning",
  minify: true,
  legalComments: "none",
  outdir: dist,
};

/** Workers are started by file name from beside the bundle: engine/tokenizer/tokenizerWorker.ts becomes dist/tokenizerWorker.js. */
function workers() {
  return filesUnder(["engine"], (file) => file.endsWith("Worker.ts")).map((file) => ({
    in: file,
    out: path.basename(file, ".ts"),
  }));
}

/** The extension's bundle loads this one, which lies beside it, once it is active. */
const loadedLater = {
  name: "loaded-later",
  setup: (build) => build.onResolve({ filter: /^\.\/connection\.js$/ }, ({ path }) => ({ path, external: true })),
};

function bundles() {
  return [
    {
      ...shared,
      entryPoints: [
        { in: "extension/extension.ts", out: "extension" },
        { in: "extension/connection.ts", out: "connection" },
        { in: "engine/main.ts", out: "engine" },
        { in: "engine/cli.ts", out: "cli" },
        ...workers(),
      ],
      platform: "node",
      target: "node20",
      format: "cjs",
      external: ["vscode", "*.node"],
      plugins: [loadedLater],
      // What is loaded later comes by require() too: the editor gives "vscode" to nothing else.
      supported: { "dynamic-import": false },
      // Some libraries ask where they are; a CommonJS bundle answers with its own place.
      define: { "import.meta.url": "__bundleUrl", __nosaBuild: String(builtAtMs) },
      banner: { js: 'const __bundleUrl = require("node:url").pathToFileURL(__filename).href;' },
      mainFields: ["module", "main"],
    },
    {
      ...shared,
      entryPoints: [
        { in: "media/chat/main.ts", out: "media/chat" },
        { in: "media/chat/chat.css", out: "media/chat" },
        { in: "media/contextMap/main.ts", out: "media/contextMap" },
        { in: "media/contextMap/contextMap.css", out: "media/contextMap" },
      ],
      platform: "browser",
      target: "es2022",
      format: "iife",
    },
  ];
}

/** Builds everything once. The addon must have been built before. */
export async function buildBundles() {
  removeOldBundles();
  const results = await Promise.all(bundles().map((options) => build({ ...options, metafile: true })));
  writeInputs(results.map((result) => result.metafile));
  copyAddon();
  copyAdapters();
  checkSizes();
}

/** Which file of which package went into which bundle, and with how many bytes: for whoever wonders about a size. */
function writeInputs(metafiles) {
  const outputs = metafiles.flatMap((metafile) => Object.entries(metafile.outputs));
  const inputs = outputs.map(([name, output]) => [
    name,
    Object.fromEntries(Object.entries(output.inputs).map(([input, { bytesInOutput }]) => [input, bytesInOutput])),
  ]);
  mkdirSync(path.dirname(inputsFile), { recursive: true });
  writeFileSync(inputsFile, JSON.stringify(Object.fromEntries(inputs), null, 1));
}

/** Only the addon may stay: an older build's leftovers would end up in the package. */
function removeOldBundles() {
  mkdirSync(dist, { recursive: true });
  for (const name of readdirSync(dist)) {
    if (!nativeFiles.includes(name)) rmSync(path.join(dist, name), { recursive: true, force: true });
  }
}

/** An engine that runs may have the old file mapped: the new one is put in its place by name. */
function copyAddon() {
  if (!existsSync(addonSource))
    throw new Error(`There is no ${path.relative(inRoot(), addonSource)}: run node scripts/build-native.mjs first.`);
  const aside = path.join(dist, ".nosa.node");
  copyFileSync(addonSource, aside);
  renameSync(aside, path.join(dist, "nosa.node"));
}

/** adapters/<model>/adapter.safetensors becomes dist/adapters/<model>.safetensors. */
function copyAdapters() {
  mkdirSync(path.join(dist, "adapters"), { recursive: true });
  for (const name of adapterNames()) {
    copyFileSync(inRoot("adapters", name, "adapter.safetensors"), path.join(dist, "adapters", `${name}.safetensors`));
  }
}

/** Models that an adapter was trained for. */
export function adapterNames() {
  return readdirSync(inRoot("adapters")).filter((name) => existsSync(inRoot("adapters", name, "adapter.safetensors")));
}

function checkSizes() {
  for (const [name, most] of Object.entries(kilobytesMax)) {
    const kilobytes = Math.ceil(statSync(path.join(dist, name)).size / 1024);
    if (kilobytes > most) {
      throw new Error(
        `dist/${name} has ${kilobytes} KiB, more than its ${most}. If that is meant, raise the number in scripts/build.mjs.`,
      );
    }
  }
}

async function watch() {
  mkdirSync(dist, { recursive: true });
  const contexts = await Promise.all(
    bundles().map((options) => context({ ...options, logLevel: "info", sourcemap: true })),
  );
  if (existsSync(addonSource)) copyAddon();
  copyAdapters();
  await Promise.all(contexts.map((each) => each.watch()));
}

if (process.argv[1] === import.meta.filename) {
  const { values } = parseArgs({ options: { watch: { type: "boolean", default: false } } });
  if (values.watch) {
    await watch();
  } else {
    await buildBundles();
    for (const file of readdirSync(dist, { recursive: true }).sort()) {
      const { size } = statSync(path.join(dist, file));
      if (!statSync(path.join(dist, file)).isDirectory())
        process.stdout.write(`${String(Math.ceil(size / 1024)).padStart(7)} KiB  dist/${file}\n`);
    }
  }
}
