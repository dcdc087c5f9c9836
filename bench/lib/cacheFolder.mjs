// Where a benchmark keeps what takes long to make, outside the checkout: NOSA_BENCH_CACHE, or a folder of the user's cache.
import { mkdirSync } from "node:fs";
import os from "node:os";
import path from "node:path";

/** Absolute path of the folder `name` in the cache; made when it is not there. */
export function cacheFolder(name) {
  const base = process.env.NOSA_BENCH_CACHE ?? path.join(os.homedir(), ".cache", "nosa-bench");
  const folder = path.join(base, name);
  mkdirSync(folder, { recursive: true });
  return folder;
}
