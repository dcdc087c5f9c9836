// The CUDA compiler: the machine's own where there is one, else NVIDIA's Python packages, which ship it whole.
import { existsSync, readdirSync, rmSync, symlinkSync } from "node:fs";
import path from "node:path";
import { userCache } from "./paths.mjs";
import { makeEnvironment } from "./pythonEnvironment.mjs";
import { run, versionOf } from "./run.mjs";

/** The oldest release that knows every target we ship (sm_120). */
const minimum = [12, 8];

/**
 * The oldest release whose packages hold the whole compiler. What it builds needs driver 580 or newer; a newer toolkit
 * would ask for a newer driver.
 */
const packages = [
  "nvidia-cuda-nvcc==13.0.88",
  "nvidia-cuda-crt==13.0.88",
  "nvidia-nvvm==13.0.88",
  "nvidia-cuda-cccl==13.0.85",
  "nvidia-cuda-runtime==13.0.96",
];

const nvccName = process.platform === "win32" ? "nvcc.exe" : "nvcc";

/** Machine code for these, and PTX of the first for what comes after them. */
export const cudaTargets = ["80-real", "86-real", "89-real", "90-real", "120-real", "80-virtual"];

/** A toolkit that is there already, or undefined: { nvcc, version }. */
export async function findCudaToolkit() {
  const homes = [process.env.CUDA_HOME, process.env.CUDA_PATH].filter((home) => home !== undefined && home !== "");
  const candidates = [...homes.map((home) => path.join(home, "bin", nvccName)), nvccName, fetchedNvcc()];
  for (const nvcc of candidates) {
    if (nvcc === undefined) continue;
    const version = await nvccVersion(nvcc);
    if (version !== undefined) return { nvcc, version };
  }
  return undefined;
}

/** As `findCudaToolkit`, and fetches one where there is none: { toolkit } or { why } it cannot be had. */
export async function ensureCudaToolkit() {
  const found = await findCudaToolkit();
  if (found !== undefined) return { toolkit: found };
  if (process.platform !== "linux") return { why: "there is no nvcc, and it can be fetched on Linux alone" };
  const why = await fetchToolkit();
  if (why !== undefined) return { why };
  const toolkit = await findCudaToolkit();
  return toolkit === undefined ? { why: "the nvcc that was fetched does not run here" } : { toolkit };
}

const environment = () => userCache("cuda-13.0");

/** Where pip's packages put nvcc: lib/pythonX.Y/site-packages/nvidia/cu13/bin. */
function fetchedNvcc() {
  const lib = path.join(environment(), "lib");
  if (!existsSync(lib)) return undefined;
  return readdirSync(lib)
    .map((python) => path.join(lib, python, "site-packages/nvidia/cu13/bin", nvccName))
    .find((file) => existsSync(file));
}

/** The release, when it is new enough. */
async function nvccVersion(nvcc) {
  const { code, stdout } = await run(nvcc, ["--version"], { allowFailure: true });
  const numbers = code === 0 ? /release (\d+)\.(\d+)/.exec(stdout) : null;
  if (numbers === null) return undefined;
  const [major, minor] = numbers.slice(1).map(Number);
  const isEnough = major > minimum[0] || (major === minimum[0] && minor >= minimum[1]);
  return isEnough ? `${major}.${minor}` : undefined;
}

/** Undefined on success, else why not. */
async function fetchToolkit() {
  if ((await versionOf("python3", ["-m", "venv", "-h"])) === undefined) {
    return "there is no nvcc, and no Python to fetch it with";
  }
  const folder = environment();
  const got = await makeEnvironment(folder, ["--no-deps", ...packages], "cuda");
  const nvcc = fetchedNvcc();
  if (!got || nvcc === undefined) {
    rmSync(folder, { recursive: true, force: true });
    return "there is no nvcc, and its Python packages could not be fetched";
  }
  // The packages say lib where the compiler's own profile says lib64.
  const lib64 = path.join(path.dirname(nvcc), "..", "lib64");
  if (!existsSync(lib64)) symlinkSync("lib", lib64);
  return undefined;
}
