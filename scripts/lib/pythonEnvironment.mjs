// Programs that come as Python packages, each in an environment of its own.
import { mkdirSync, rmSync } from "node:fs";
import path from "node:path";
import { run } from "./run.mjs";

/** Where the programs of an environment lie. */
export function programsOf(environment) {
  return path.join(environment, process.platform === "win32" ? "Scripts" : "bin");
}

/** Makes the environment and has pip install what `wanted` says; logs under `name`. False, and nothing left of it, where either fails. */
export async function makeEnvironment(environment, wanted, name) {
  mkdirSync(path.dirname(environment), { recursive: true });
  const made = await run("python3", ["-m", "venv", environment], { allowFailure: true, log: `${name}-venv` });
  const pip = path.join(programsOf(environment), "pip");
  const got =
    made.code === 0 && (await run(pip, ["install", ...wanted], { allowFailure: true, log: `${name}-pip` })).code === 0;
  if (!got) rmSync(environment, { recursive: true, force: true });
  return got;
}
