// Packages the built extension as a .vsix and looks at what is inside.
//
//   node scripts/package.mjs                        for this machine; prints the path of the package
//   node scripts/package.mjs --target linux-arm64   for another one, where a compiler for it is there
import { copyFileSync, cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { adapterNames } from "./build.mjs";
import { buildCudaLibrary, cudaLibrary, cudaLibraryName } from "./build-cuda.mjs";
import { checkoutCache, inRoot } from "./lib/paths.mjs";
import { run } from "./lib/run.mjs";
import { printFailure } from "./lib/steps.mjs";
import { assertMadeFor, hostTarget, toolsFor } from "./lib/targets.mjs";
import { zipEntries } from "./lib/zip.mjs";

/** Where the package for this machine is written; the addon inside is a program for its kind alone. */
export const vsixFile = inRoot(`build/nosa-${hostTarget}.vsix`);

/** With and without the CUDA part. */
const vsixMegabytesMax = { plain: 15, cuda: 75 };

/** What must be in dist/, beside the workers: nothing else may be there. */
const builtFiles = [
  "cli.js",
  "connection.js",
  "engine.js",
  "extension.js",
  "media/chat.css",
  "media/chat.js",
  "media/contextMap.css",
  "media/contextMap.js",
  "nosa.node",
];

/** Programs for one kind of machine, which have builds of their own. */
const nativeFiles = ["nosa.node", cudaLibraryName];

/** Everything the package for `target` may and must hold, as the names inside it. The CUDA part is built for this machine's kind alone. */
function expectedFiles(target) {
  const workers = readdirSync(inRoot("dist")).filter((name) => name.endsWith("Worker.js"));
  const assets = ["docs/img", "l10n", "media/icons", "media/walkthrough"].flatMap((folder) =>
    readdirSync(inRoot(folder), { recursive: true })
      .map((name) => path.posix.join(folder, name.split(path.sep).join("/")))
      .filter((name) => statSync(inRoot(name)).isFile()),
  );
  return [
    "[Content_Types].xml",
    "extension.vsixmanifest",
    // vsce gives these three names of its own.
    "extension/LICENSE.txt",
    "extension/changelog.md",
    "extension/readme.md",
    "extension/package.json",
    "extension/package.nls.json",
    "extension/package.nls.de.json",
    ...[...builtFiles, ...(hasCuda(target) ? [cudaLibraryName] : []), ...workers].map(
      (name) => `extension/dist/${name}`,
    ),
    ...adapterNames().map((name) => `extension/dist/adapters/${name}.safetensors`),
    ...assets.map((name) => `extension/${name}`),
  ].sort();
}

const hasCuda = (target) => target === hostTarget && existsSync(cudaLibrary);

/**
 * Packages dist/ as it is, and checks the list of files and the size. For another system than this one it takes that one's
 * `addon`. Resolves with the path of the package.
 *
 * @param {{ target?: string, addon?: string, file?: string }} [options]
 */
export async function packageVsix({ target = hostTarget, addon, file = inRoot(`build/nosa-${target}.vsix`) } = {}) {
  mkdirSync(path.dirname(file), { recursive: true });
  const folder = target === hostTarget ? inRoot() : staged(target, addon);
  await run(
    process.execPath,
    [
      inRoot("node_modules/@vscode/vsce/vsce"),
      "package",
      "--target",
      target,
      "--no-dependencies",
      "--allow-missing-repository",
      // The pictures of the README are in the package; there is no public address to point at.
      "--no-rewrite-relative-links",
      "--out",
      file,
    ],
    { cwd: folder, log: "vsce" },
  );
  checkFiles(target, file);
  return file;
}

/** A folder with what this one would put into a package, and another addon: engines that run here keep theirs. */
function staged(target, addon) {
  assertMadeFor(target, addon);
  const folder = path.join(checkoutCache, "package", target);
  rmSync(folder, { recursive: true, force: true });
  for (const name of ["package.json", ...manifest().files]) {
    cpSync(inRoot(name), path.join(folder, name), {
      recursive: true,
      filter: (source) => !nativeFiles.some((native) => source === inRoot("dist", native)),
    });
  }
  copyFileSync(addon, path.join(folder, "dist/nosa.node"));
  return folder;
}

function checkFiles(target, file) {
  const present = zipEntries(file).map((entry) => entry.name);
  const expected = expectedFiles(target);
  const missing = expected.filter((name) => !present.includes(name));
  const surplus = present.filter((name) => !expected.includes(name));
  if (missing.length > 0) throw new Error(`The package lacks ${missing.join(", ")}.`);
  if (surplus.length > 0) throw new Error(`The package holds what it should not: ${surplus.join(", ")}.`);
  const megabytes = statSync(file).size / 2 ** 20;
  const megabytesMax = hasCuda(target) ? vsixMegabytesMax.cuda : vsixMegabytesMax.plain;
  if (megabytes > megabytesMax)
    throw new Error(`The package has ${megabytes.toFixed(1)} MiB, more than ${megabytesMax}.`);
}

/** The manifest, for those who need a name or a version from it. */
export function manifest() {
  return JSON.parse(readFileSync(inRoot("package.json"), "utf8"));
}

/** Builds what the package for `target` is made of, and the package. */
async function main(target) {
  const { createSteps } = await import("./lib/steps.mjs");
  // Whoever asks for what cannot be built is told at once.
  const tools = await toolsFor(target);
  const { prepareBundles } = await import("./lib/prepare.mjs");
  const steps = createSteps({ stream: process.stderr, quiet: true });
  if (tools === undefined) await steps.step("CUDA part", async () => await buildCudaLibrary());
  await prepareBundles(steps);
  if (tools === undefined) return packageVsix();
  const { buildNativeFor } = await import("./build-native.mjs");
  let addon = "";
  await steps.step(`addon for ${target}`, async (update) => {
    addon = await buildNativeFor(target, update);
  });
  return packageVsix({ target, addon });
}

if (process.argv[1] === import.meta.filename) {
  try {
    const { values } = parseArgs({ options: { target: { type: "string", default: hostTarget } } });
    process.stdout.write(`${await main(values.target)}\n`);
  } catch (error) {
    printFailure(error);
    process.exitCode = 1;
  }
}
