// Compiles native/ into the addon, with cmake-js, and puts it where everything looks for it:
// build/Release/nosa.node, and dist/nosa.node.
//
//   node scripts/build-native.mjs
//
// For another system it is built apart, and put nowhere: see scripts/package.mjs.
// When nothing that the compiler sees has changed since the last success, it returns at once.
import { spawn } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync } from "node:fs";
import { cpus } from "node:os";
import path from "node:path";
import { checkoutCache, inRoot } from "./lib/paths.mjs";
import { hashOf, hashOfFile, isDone, markDone, markUndone } from "./lib/stamp.mjs";
import { assertMadeFor, hostTarget, toolsFor } from "./lib/targets.mjs";

/** What cmake-js makes. */
export const builtAddon = inRoot("build/Release/nosa.node");

/** Where bundles and tests load it from. */
export const addonFile = inRoot("dist/nosa.node");

/** Everything that its compiler sees. */
export const addonInputs = ["CMakeLists.txt", "native", "kernels/CMakeLists.txt", "scripts/build-native.mjs"];

/** Whether the addon is built from what is in the tree: then `buildNative` needs no tool chain. */
export function addonIsCurrent() {
  return existsSync(builtAddon) && isDone("native", inputHash());
}

/** Builds what is missing; gives the path of the addon. `onLine` is told each line of the compiler's progress. */
export async function buildNative(onLine = () => undefined) {
  if (!addonIsCurrent()) {
    // Taken before: a file that changes meanwhile is compiled the next time.
    const hash = inputHash();
    markUndone("native");
    await compile(inRoot("build"), [], onLine);
    markDone("native", hash);
  }
  putInPlace();
  return addonFile;
}

/** The addon for one of VS Code's targets: gives its path. For this machine it is the one that everything loads. */
export async function buildNativeFor(target, onLine = () => undefined) {
  const tools = await toolsFor(target);
  if (tools === undefined) return buildNative(onLine);
  const out = path.join(checkoutCache, "native", `addon-${target}`);
  const addon = path.join(out, "Release/nosa.node");
  const hash = inputHash(target);
  if (!existsSync(addon) || !isDone(`native-${target}`, hash)) {
    markUndone(`native-${target}`);
    await compile(out, tools, onLine);
    markDone(`native-${target}`, hash);
  }
  assertMadeFor(target, addon);
  return addon;
}

function inputHash(target = hostTarget) {
  const { version, devDependencies } = JSON.parse(readFileSync(inRoot("package.json"), "utf8"));
  const versions = `${devDependencies["node-addon-api"]} ${devDependencies["cmake-js"]}`;
  return hashOf(addonInputs, `${target} ${version} ${versions}`);
}

async function compile(out, options, onLine) {
  const cmakeJs = inRoot("node_modules/cmake-js/bin/cmake-js");
  const jobs = String(Math.max(1, cpus().length));
  const child = spawn(process.execPath, [cmakeJs, "compile", "--out", out, "--parallel", jobs, ...options], {
    cwd: inRoot(),
    stdio: ["ignore", "pipe", "pipe"],
  });
  const kept = [];
  const listen = (stream) => {
    let rest = "";
    stream.setEncoding("utf8").on("data", (text) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines.filter((each) => each.trim() !== "")) {
        kept.push(line);
        onLine(line);
      }
    });
  };
  listen(child.stdout);
  listen(child.stderr);
  const code = await new Promise((resolve, reject) => child.once("error", reject).once("close", resolve));
  if (code !== 0) {
    // The compiler's own words, from the first error on.
    const first = kept.findIndex((line) => /error|FAILED/i.test(line));
    throw new Error(`Compiling the addon failed:\n${kept.slice(Math.max(first, 0)).slice(0, 60).join("\n")}`);
  }
}

/** An engine that runs may have the old file mapped: the new one replaces it by name. */
function putInPlace() {
  if (existsSync(addonFile) && hashOfFile(addonFile) === hashOfFile(builtAddon)) return;
  mkdirSync(path.dirname(addonFile), { recursive: true });
  const aside = `${addonFile}.${process.pid}`;
  copyFileSync(builtAddon, aside);
  renameSync(aside, addonFile);
}

if (process.argv[1] === import.meta.filename) {
  try {
    const file = await buildNative((line) => process.stdout.write(`${line}\n`));
    process.stdout.write(`${path.relative(process.cwd(), file)} is up to date.\n`);
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  }
}
