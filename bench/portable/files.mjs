// Which files of a checkout the benchmarks and evaluations load, so that they can be carried to a machine without a network.
import { build } from "esbuild";
import { existsSync, readdirSync, statSync } from "node:fs";
import path from "node:path";
import { corpusFolders } from "../lib/corpus.mjs";
import { codePackages } from "../lib/code.mjs";
import { filesUnder } from "../../scripts/lib/stamp.mjs";
import { inRoot, root } from "../../scripts/lib/paths.mjs";

/** They need an editor, or build what they measure; what others import of them comes along. */
const stay = /^(?:bench\/(?:editor|gpu|portable)(?:\/|\.mjs)|bench\/results\/)/;

/** What esbuild and llama.cpp look up by a path when they run, where no import says so. */
const lookedUp = [
  "node_modules/@esbuild/linux-x64",
  "node_modules/@node-llama-cpp/linux-x64",
  "node_modules/node-llama-cpp/llama/binariesGithubRelease.json",
  "node_modules/node-llama-cpp/llama/llama.cpp.info.json",
];

/** Of what is built: the engine and what drives it, nothing of the editor's. */
const built = ["cli.js", "engine.js", "tokenizerWorker.js", "nosa.node", "adapters"].map((name) => `dist/${name}`);

/** Everything that bench/run.mjs and eval/run.mjs need where they run, as paths below the root, sorted. What is measured of packages is part of it. */
export async function programFiles() {
  const own = filesUnder(["bench", "eval"]).filter((file) => !stay.test(file));
  const programs = own.filter((file) => file.endsWith(".mjs"));
  const imported = [
    ...(await importsOf(programs, "esm")),
    // bench/lib/product.mjs bundles it with what it needs, there as here.
    ...(await importsOf(["bench/lib/product.ts"], "cjs")),
  ];
  const measured = [...corpusFolders, ...codePackages.map((name) => `${name}/lib`)];
  const others = [
    ...built,
    ...lookedUp,
    ...measured.map((name) => `node_modules/${name}`),
    "samples",
    "training/manifest.json",
    "tsconfig.json",
    "LICENSE",
  ].flatMap(everythingBelow);
  const files = new Set([...own, ...imported, ...others]);
  return [...new Set([...files, ...manifestsOf(files)])].sort();
}

/**
 * Every file that is imported from these on, by whatever way, as Node resolves it. What cannot be resolved is left to the program: packages name others of
 * other systems, and are ready for them to be missing.
 */
async function importsOf(entryPoints, format) {
  const { metafile } = await build({
    absWorkingDir: root,
    entryPoints,
    bundle: true,
    write: false,
    metafile: true,
    outdir: ".cache/none",
    platform: "node",
    format,
    // Node knows nothing of "module", and loads what is imported whether it is used or not.
    ...(format === "esm" ? { conditions: [], mainFields: ["main"] } : {}),
    ignoreAnnotations: true,
    loader: { ".node": "file" },
    logLevel: "silent",
    plugins: [leavingOut],
  });
  return Object.keys(metafile.inputs);
}

const leavingOut = {
  name: "leaving out",
  setup({ onResolve, resolve }) {
    onResolve({ filter: /^\.\/(?:editor|gpu)\.mjs$/ }, () => ({ external: true }));
    onResolve({ filter: /^[^./]/ }, async ({ path: name, kind, importer, resolveDir, pluginData }) => {
      if (pluginData === "asked") return undefined;
      const { errors, ...found } = await resolve(name, { kind, importer, resolveDir, pluginData: "asked" });
      return errors.length > 0 ? { external: true } : found;
    });
  },
};

/** The package.json files above them: they say what is a module, and which file a name stands for. */
function manifestsOf(files) {
  const folders = new Set();
  for (const file of files) {
    for (let at = path.posix.dirname(file); at !== "."; at = path.posix.dirname(at)) folders.add(at);
  }
  return [".", ...folders]
    .map((folder) => path.posix.join(folder, "package.json"))
    .filter((file) => existsSync(inRoot(file)));
}

/** A file itself; of a folder all files. */
function everythingBelow(place) {
  if (!existsSync(inRoot(place))) throw new Error(`${place} is not there: run npm run build first.`);
  if (!statSync(inRoot(place)).isDirectory()) return [place];
  return readdirSync(inRoot(place), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(root, path.join(entry.parentPath, entry.name)).replaceAll(path.sep, "/"));
}
