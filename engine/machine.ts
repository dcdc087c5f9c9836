/** Facts of this machine, measured rather than configured. */

import * as fs from "node:fs";
import * as os from "node:os";

/** Physical cores this process may use: two threads of one core only get in each other's way in matrix products. */
export function physicalCores(): number {
  const usable = os.availableParallelism();
  if (process.platform === "linux") {
    const cores = coresOf(readText("/proc/cpuinfo"));
    return cores > 0 ? Math.min(cores, usable) : usable;
  }
  const twoThreadsEach = process.arch === "x64" && usable > 2;
  return twoThreadsEach ? Math.floor(usable / 2) : usable;
}

/** Pairs of package and core in Linux's list of processors; 0 where it names none (as on ARM). */
export function coresOf(cpuinfo: string): number {
  const cores = new Set<string>();
  let physicalId = "";
  for (const line of cpuinfo.split("\n")) {
    const [name = "", value = ""] = line.split(":").map((part) => part.trim());
    if (name === "physical id") physicalId = value;
    if (name === "core id") cores.add(`${physicalId} ${value}`);
  }
  return cores.size;
}

function readText(file: string): string {
  try {
    return fs.readFileSync(file, "utf8");
  } catch {
    return "";
  }
}
