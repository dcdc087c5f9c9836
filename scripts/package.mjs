// Packages the built extension as a .vsix and looks at what is inside.
//
//   node scripts/package.mjs          prints the path of the package
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync } from "node:fs";
import path from "node:path";
import { adapterNames } from "./build.mjs";
import { buildCudaLibrary, cudaLibrary, cudaLibraryName } from "./build-cuda.mjs";
import { inRoot } from "./lib/paths.mjs";
import { run } from "./lib/run.mjs";
import { printFailure } from "./lib/steps.mjs";
import { zipEntries } from "./lib/zip.mjs";

/** VS Code's name for this platform; the addon inside is a program for it alone. */
export const vsixTarget = `${process.platform}-${process.arch}`;

/** Where the package is written. */
export const vsixFile = inRoot(`build/nosa-${vsixTarget}.vsix`);

/** With and without the CUDA part. */
const vsixMegabytesMax = { plain: 15, cuda: 75 };

/** What must be in dist/, beside the workers: nothing else may be there. */
const builtFiles = [
  "cli.js",
  "engine.js",
  "extension.js",
  "media/chat.css",
  "media/chat.js",
  "media/contextMap.css",
  "media/contextMap.js",
  "nosa.node",
];

/** Everything the package may and must hold, as the names inside it. */
export function expectedFiles() {
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
    ...[...builtFiles, ...(existsSync(cudaLibrary) ? [cudaLibraryName] : []), ...workers].map(
      (name) => `extension/dist/${name}`,
    ),
    ...adapterNames().map((name) => `extension/dist/adapters/${name}.safetensors`),
    ...assets.map((name) => `extension/${name}`),
  ].sort();
}

/** Packages dist/ as it is, and checks the list of files and the size. */
export async function packageVsix() {
  mkdirSync(path.dirname(vsixFile), { recursive: true });
  await run(
    process.execPath,
    [
      inRoot("node_modules/@vscode/vsce/vsce"),
      "package",
      "--target",
      vsixTarget,
      "--no-dependencies",
      "--allow-missing-repository",
      // The pictures of the README are in the package; there is no public address to point at.
      "--no-rewrite-relative-links",
      "--out",
      vsixFile,
    ],
    { log: "vsce" },
  );
  checkFiles();
  return vsixFile;
}

function checkFiles() {
  const present = zipEntries(vsixFile).map((entry) => entry.name);
  const expected = expectedFiles();
  const missing = expected.filter((name) => !present.includes(name));
  const surplus = present.filter((name) => !expected.includes(name));
  if (missing.length > 0) throw new Error(`The package lacks ${missing.join(", ")}.`);
  if (surplus.length > 0) throw new Error(`The package holds what it should not: ${surplus.join(", ")}.`);
  const megabytes = statSync(vsixFile).size / 2 ** 20;
  const megabytesMax = existsSync(cudaLibrary) ? vsixMegabytesMax.cuda : vsixMegabytesMax.plain;
  if (megabytes > megabytesMax)
    throw new Error(`The package has ${megabytes.toFixed(1)} MiB, more than ${megabytesMax}.`);
}

/** The manifest, for those who need a name or a version from it. */
export function manifest() {
  return JSON.parse(readFileSync(inRoot("package.json"), "utf8"));
}

if (process.argv[1] === import.meta.filename) {
  const { prepareBundles } = await import("./lib/prepare.mjs");
  const { createSteps } = await import("./lib/steps.mjs");
  try {
    const steps = createSteps({ stream: process.stderr, quiet: true });
    await steps.step("CUDA part", async () => await buildCudaLibrary());
    await prepareBundles(steps);
    process.stdout.write(`${await packageVsix()}\n`);
  } catch (error) {
    printFailure(error);
    process.exitCode = 1;
  }
}
