// Compiles kernels/ and native/cuda/ into the library that the engine loads where there is a GPU: dist/libnosa_cuda.so.
//
//   node scripts/build-cuda.mjs [--targets 90-real,80-virtual]
//
// Without --targets it is built for all GPUs that the package serves, which takes long; when nothing that the compiler
// sees has changed since the last success, it returns at once.
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { cudaTargets, ensureCudaToolkit } from "./lib/cudaToolkit.mjs";
import { checkoutCache, inRoot } from "./lib/paths.mjs";
import { run, versionOf } from "./lib/run.mjs";
import { hashOf, isDone, markDone, markUndone } from "./lib/stamp.mjs";

/** Its name beside the addon. */
export const cudaLibraryName = "libnosa_cuda.so";
export const cudaLibrary = inRoot("dist", cudaLibraryName);

/** Everything that its compiler sees. */
export const cudaInputs = [
  "CMakeLists.txt",
  "kernels",
  "native/CMakeLists.txt",
  "native/cmake",
  "native/core",
  "native/cuda",
  "native/kv",
  "scripts/build-cuda.mjs",
];

/** Beside the library, what checks and measures it on a GPU: CMake targets. */
export const cudaChecks = ["cuda_backend", "memory_plan", "same_tokens", "session_test", "gpu_bench"];

const megabytesMax = 60;

/** The CUDA compiler that a build folder was made for. */
function compilerOf(folder) {
  const cache = path.join(folder, "CMakeCache.txt");
  return existsSync(cache) ? /^CMAKE_CUDA_COMPILER:\w+=(.*)$/m.exec(readFileSync(cache, "utf8"))?.[1] : undefined;
}

/**
 * CMake targets of the CUDA part, built by `toolkit` for `targets`: resolves with the build folder, whose name begins with
 * `name`. `options` are more of CMake's.
 */
export async function compileCuda({ name, toolkit, targets, what, options = [] }) {
  const folder = path.join(checkoutCache, "native", name);
  // CMake drops what else it was told when the compiler is another one.
  if (compilerOf(folder) !== toolkit.nvcc) rmSync(folder, { recursive: true, force: true });
  const generator = (await versionOf("ninja")) === undefined ? [] : ["-G", "Ninja"];
  const settings = [
    "-DCMAKE_BUILD_TYPE=Release",
    "-DNOSA_CUDA=ON",
    "-DNOSA_TESTS=OFF",
    `-DCMAKE_CUDA_COMPILER=${toolkit.nvcc}`,
    `-DCMAKE_CUDA_ARCHITECTURES=${targets.join(";")}`,
    ...options,
  ];
  await run("cmake", ["-S", inRoot(), "-B", folder, ...generator, ...settings], { log: `cmake-${name}` });
  await run("cmake", ["--build", folder, "--parallel", "2", "--target", ...what], { log: `build-${name}` });
  return folder;
}

/** Builds the library for all GPUs and puts it into dist/; resolves with why not, or undefined. */
export async function buildCudaLibrary(targets = cudaTargets) {
  const { toolkit, why } = await ensureCudaToolkit();
  if (toolkit === undefined) return why;
  const hash = hashOf(cudaInputs, `${toolkit.version} ${targets.join(" ")}`);
  if (existsSync(cudaLibrary) && isDone("cuda-library", hash)) return undefined;
  markUndone("cuda-library");
  const folder = await compileCuda({ name: "cuda-library", toolkit, targets, what: ["nosa_cuda_library"] });
  const built = path.join(folder, cudaLibraryName);
  const megabytes = statSync(built).size / 2 ** 20;
  if (megabytes > megabytesMax)
    throw new Error(`The CUDA part has ${megabytes.toFixed(1)} MiB, more than ${megabytesMax}.`);
  mkdirSync(path.dirname(cudaLibrary), { recursive: true });
  const aside = `${cudaLibrary}.${process.pid}`;
  copyFileSync(built, aside);
  renameSync(aside, cudaLibrary);
  markDone("cuda-library", hash);
  return undefined;
}

if (process.argv[1] === import.meta.filename) {
  const { values } = parseArgs({ options: { targets: { type: "string" } } });
  try {
    const why = await buildCudaLibrary(values.targets?.split(","));
    if (why !== undefined) throw new Error(`The CUDA part cannot be built: ${why}.`);
    const megabytes = (statSync(cudaLibrary).size / 2 ** 20).toFixed(1);
    process.stdout.write(`${path.relative(process.cwd(), cudaLibrary)} is up to date (${megabytes} MiB).\n`);
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  }
}
