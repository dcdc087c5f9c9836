// npm test: installs what is missing and runs every test there is, the one in the real VS Code included.
//
//   npm test                          everything
//   npm test -- unit lint             only the named ones
//   npm test -- --list                their names
//
// The last line is "N passed, N failed", with ", N skipped" after it when there were any. Long builds and runs whose
// inputs have not changed since they last passed are not repeated; their line says so.
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { addonInputs, buildNativeFor } from "./build-native.mjs";
import { compileCuda, cudaChecks, cudaInputs, cudaLibraryName } from "./build-cuda.mjs";
import { ensureCudaToolkit } from "./lib/cudaToolkit.mjs";
import { installHost } from "./lib/editorHost.mjs";
import { checkoutCache, inRoot } from "./lib/paths.mjs";
import { prepareBundles, prepareModel, preparePackages, prepareVsix } from "./lib/prepare.mjs";
import { run, versionOf } from "./lib/run.mjs";
import { hashOf, isDone, markDone, markUndone } from "./lib/stamp.mjs";
import { Advice, createSteps, printFailure, seconds } from "./lib/steps.mjs";
import { ensureTestTools } from "./lib/tools.mjs";

const steps = createSteps();
const minuteMs = 60_000;
const fuzzSecondsPerTarget = 15;
const nativeInputs = ["CMakeLists.txt", "native", "kernels", "test/native"];

/** Models that the tests use: the quick one, and the default one, which the oracle reads too. */
const testModels = ["smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct"];

/** Name → what it does. Each resolves with counts, or throws when it cannot be run. Quick ones first. */
const tests = {
  typecheck: () => check("typescript/bin/tsc", ["-p", "tsconfig.json", "--noEmit"]),
  lint: () => check("eslint/bin/eslint.js", [".", "--max-warnings", "0"]),
  format: () => check("prettier/bin/prettier.cjs", ["--check", "--log-level", "warn", "."]),
  unit: () => vitest("unit", 5),
  native: () => nativeTests("native", []),
  sanitizers: () =>
    onceFor("sanitizers", nativeInputs, () => nativeTests("sanitizers", ["-DNOSA_SANITIZE=address,undefined"])),
  fuzz: () => onceFor("fuzz", nativeInputs, fuzz),
  arm: () => onceFor("arm", addonInputs, compileForArm),
  cuda: () =>
    onceFor("cuda", [...cudaInputs, "bench/gpu", "native", "test/cuda", "test/kernels", "test/native"], compileForCuda),
  training: () => onceFor("training", ["training/nosa_train", "training/tests", "training/pytest.ini"], trainingTests),
  addon: () => vitest("addon", 10, [prepareBundles]),
  project: () => vitest("project", 5, [prepareBundles, prepareVsix]),
  engine: () => vitest("engine", 15, [prepareBundles, prepareModels]),
  oracle: () => vitest("oracle", 20, [prepareBundles, prepareModels]),
  e2e: () => vitest("e2e", 15, [prepareBundles, prepareVsix, prepareModels, prepareEditor]),
};

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { list: { type: "boolean", default: false } },
  });
  if (values.list) {
    steps.say(Object.keys(tests).join("\n"));
    return 0;
  }
  const unknown = positionals.filter((name) => tests[name] === undefined);
  if (unknown.length > 0)
    throw new Advice(`There is no test ${unknown.join(", ")}. The names: ${Object.keys(tests).join(", ")}.`);

  const startedMs = Date.now();
  await preparePackages(steps);
  await steps.step("tools", async () => {
    const added = await ensureTestTools();
    return added.length === 0 ? undefined : `installed ${added.join(", ")}`;
  });
  const results = [];
  for (const name of positionals.length === 0 ? Object.keys(tests) : positionals) results.push(await runTest(name));
  return report(results, startedMs);
}

/** Runs one test, and goes on whatever becomes of it. */
async function runTest(name) {
  const startedMs = Date.now();
  let counts = { passed: 0, failed: 1, skipped: 0 };
  try {
    await steps.step(`test: ${name}`, async () => {
      counts = await tests[name]();
      return describe(counts);
    });
    if (counts.failed > 0) steps.say(`\n${counts.tail ?? ""}\n`);
  } catch (error) {
    printFailure(error, process.stdout);
    steps.say("");
  }
  return { name, counts, time: seconds(startedMs) };
}

function report(results, startedMs) {
  const total = (key) => results.reduce((sum, { counts }) => sum + counts[key], 0);
  steps.say("");
  for (const { name, counts, time } of results) {
    steps.say(
      `  ${counts.failed === 0 ? "ok    " : "FAILED"}  ${name.padEnd(12)}${describe(counts).padEnd(56)}${time.padStart(8)}`,
    );
  }
  steps.say(`\n  ${seconds(startedMs)} in all\n`);
  const skipped = total("skipped");
  steps.say(`${total("passed")} passed, ${total("failed")} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`);
  return total("failed") === 0 ? 0 : 1;
}

function describe({ passed, failed, skipped, note }) {
  const words = [`${passed} passed`];
  if (failed > 0) words.push(`${failed} FAILED`);
  if (skipped > 0) words.push(`${skipped} skipped`);
  return `${words.join(", ")}${note === undefined ? "" : ` (${note})`}`;
}

/** A program of node_modules that is content or is not. */
async function check(program, args) {
  const [script, ...rest] = [inRoot("node_modules", program), ...args];
  const { code, tail } = await run(process.execPath, [script, ...rest], {
    log: path.basename(program),
    allowFailure: true,
  });
  return { passed: code === 0 ? 1 : 0, failed: code === 0 ? 0 : 1, skipped: 0, tail };
}

/** One project of vitest.config.ts, after what it needs. */
async function vitest(project, minutesMax, needs = []) {
  const preparation = createSteps({ quiet: true });
  for (const prepare of needs) await prepare(preparation);
  const summary = path.join(checkoutCache, "logs", `vitest-${project}.json`);
  mkdirSync(path.dirname(summary), { recursive: true });
  rmSync(summary, { force: true });
  const { code, tail } = await run(
    process.execPath,
    [
      inRoot("node_modules/vitest/vitest.mjs"),
      "run",
      "--project",
      project,
      "--reporter=default",
      "--reporter=json",
      `--outputFile.json=${summary}`,
    ],
    {
      log: `vitest-${project}`,
      allowFailure: true,
      timeoutMs: minutesMax * minuteMs,
      env: { NO_COLOR: "1", FORCE_COLOR: "0" },
    },
  );
  if (!existsSync(summary)) throw new Error(`The tests of ${project} ended without a result.\n${tail}`);
  const result = JSON.parse(readFileSync(summary, "utf8"));
  const skipped = result.numPendingTests + result.numTodoTests;
  // A file that cannot be loaded has no test in it that could fail.
  const failed = Math.max(result.numFailedTests, result.numFailedTestSuites > 0 || code !== 0 ? 1 : 0);
  return { passed: result.numPassedTests, failed, skipped, tail };
}

/** Builds and runs the C++ tests in a build folder of their own. */
async function nativeTests(name, options) {
  const folder = await buildNative(name, options);
  const { code, stdout, tail } = await run("ctest", ["--output-on-failure", "--parallel", "2", "--timeout", "600"], {
    cwd: folder,
    log: `ctest-${name}`,
    allowFailure: true,
    env: { ASAN_OPTIONS: "detect_leaks=1", UBSAN_OPTIONS: "print_stacktrace=1" },
  });
  const numbers = /(\d+) tests failed out of (\d+)/.exec(stdout);
  if (numbers === null || Number(numbers[2]) === 0) throw new Error(`ctest ran no test.\n${tail}`);
  const [failed, all] = numbers.slice(1).map(Number);
  return { passed: all - failed, failed: Math.max(failed, code === 0 ? 0 : 1), skipped: 0, tail };
}

async function buildNative(name, options, targets = []) {
  const folder = path.join(checkoutCache, "native", name);
  const generator = (await versionOf("ninja")) === undefined ? [] : ["-G", "Ninja"];
  await run("cmake", ["-S", inRoot(), "-B", folder, ...generator, ...options], { log: `cmake-${name}` });
  const only = targets.length === 0 ? [] : ["--target", ...targets];
  await run("cmake", ["--build", folder, "--parallel", "2", ...only], { log: `build-${name}` });
  return folder;
}

/** Feeds every parser random variations of small valid files for a short while. */
async function fuzz() {
  const targets = readdirSync(inRoot("test/native/fuzz"))
    .filter((name) => /^fuzz_\w+\.cpp$/.test(name) && name !== "fuzz_seeds.cpp")
    .map((name) => path.basename(name, ".cpp"));
  const options = ["-DNOSA_FUZZ=ON", "-DNOSA_SANITIZE=address,undefined", "-DCMAKE_CXX_COMPILER=clang++"];
  const folder = path.join(await buildNative("fuzz", options, [...targets, "fuzz_seeds"]), "test/native/fuzz");
  const corpus = path.join(folder, "corpus");
  await run(path.join(folder, "fuzz_seeds"), [corpus], { log: "fuzz-seeds" });
  const counts = { passed: 0, failed: 0, skipped: 0, tail: "" };
  for (const target of targets) {
    const finds = path.join(folder, `${target}-finds-`);
    const limits = [
      `-max_total_time=${fuzzSecondsPerTarget}`,
      "-rss_limit_mb=2048",
      "-timeout=10",
      `-artifact_prefix=${finds}`,
    ];
    const { code, tail } = await run(
      path.join(folder, target),
      [...limits, path.join(corpus, target.replace("fuzz_", ""))],
      {
        log: target,
        allowFailure: true,
      },
    );
    counts[code === 0 ? "passed" : "failed"] += 1;
    if (code !== 0) counts.tail += tail;
  }
  return counts;
}

/** The NEON kernels cannot run here, but the addon with them must compile. */
async function compileForArm() {
  const compiler = "aarch64-linux-gnu-g++";
  if ((await versionOf(compiler)) === undefined) {
    return { passed: 0, failed: 0, skipped: 1, note: `there is no ${compiler}` };
  }
  await buildNativeFor("linux-arm64");
  return { passed: 1, failed: 0, skipped: 0 };
}

/** The CUDA part compiles wherever its compiler can be had, and says why it cannot run where there is no GPU; where there is one, it runs. */
async function compileForCuda() {
  const { toolkit, why } = await ensureCudaToolkit();
  if (toolkit === undefined) return { passed: 0, failed: 0, skipped: 1, note: why };
  const what = ["nosa_cuda_library", ...cudaChecks];
  const folder = await compileCuda({ name: "cuda", toolkit, targets: ["90-real"], what });
  const hasGpu = (await versionOf("nvidia-smi", ["-L"])) !== undefined;
  const programs = [
    ["memory_plan"],
    ["cuda_backend", path.join(folder, cudaLibraryName)],
    ...(hasGpu ? [["same_tokens"]] : []),
  ];
  const counts = { passed: 1, failed: 0, skipped: 0, tail: "" };
  for (const [name, ...args] of programs) {
    const { code, tail } = await run(path.join(folder, "test/cuda", name), args, { log: name, allowFailure: true });
    counts[code === 0 ? "passed" : "failed"] += 1;
    if (code !== 0) counts.tail += tail;
  }
  return hasGpu ? counts : { ...counts, note: "there is no GPU to run it on" };
}

/** The trainer on tiny random models, where its Python environment was made (training/README.md): that is a gigabyte to fetch. */
async function trainingTests() {
  const python = process.env.NOSA_TRAINING_PYTHON ?? inRoot("training/.venv/bin/python");
  if ((await versionOf(python, ["-c", "import pytest, torch; print(torch.__version__)"])) === undefined) {
    return { passed: 0, failed: 0, skipped: 1, note: "there is no training/.venv" };
  }
  const { code, stdout, tail } = await run(python, ["-m", "pytest", "-q"], {
    cwd: inRoot("training"),
    log: "training",
    allowFailure: true,
  });
  const count = (word) => Number(new RegExp(`(\\d+) ${word}`).exec(stdout)?.[1] ?? 0);
  const failed = Math.max(count("failed") + count("error"), code === 0 ? 0 : 1);
  return { passed: count("passed"), failed, skipped: count("skipped"), tail };
}

/** Does the work unless it passed before with the same inputs. A skip is not remembered. */
async function onceFor(name, inputs, work) {
  const hash = hashOf(inputs, await versionOf("c++"));
  const recorded = path.join(checkoutCache, "logs", `${name}-counts.json`);
  if (isDone(`test-${name}`, hash) && existsSync(recorded)) {
    return { ...JSON.parse(readFileSync(recorded, "utf8")), note: "unchanged since they passed; not run again" };
  }
  markUndone(`test-${name}`);
  const counts = await work();
  if (counts.failed === 0 && counts.skipped === 0) {
    markDone(`test-${name}`, hash);
    writeCounts(recorded, counts);
  }
  return counts;
}

function writeCounts(file, { passed, failed, skipped }) {
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, JSON.stringify({ passed, failed, skipped }));
}

async function prepareModels(preparation) {
  for (const model of testModels) await prepareModel(preparation, model);
}

async function prepareEditor(preparation) {
  await preparation.step("editor (code-server)", async () => ((await installHost()) ? "installed" : undefined));
}

try {
  process.exitCode = await main();
} catch (error) {
  printFailure(error);
  steps.say("0 passed, 1 failed");
  process.exitCode = 1;
}
