// Brings node_modules to what package-lock.json says.
import { existsSync, readFileSync } from "node:fs";
import { inRoot } from "./paths.mjs";
import { run } from "./run.mjs";

/**
 * Whether node_modules holds every package of the lock file in its version.
 *
 * npm keeps a lock file of what it installed in node_modules; optional packages, of other platforms, may be absent there.
 */
export function packagesAreInstalled() {
  const installedFile = inRoot("node_modules/.package-lock.json");
  if (!existsSync(installedFile)) return false;
  const installed = JSON.parse(readFileSync(installedFile, "utf8")).packages;
  const wanted = JSON.parse(readFileSync(inRoot("package-lock.json"), "utf8")).packages;
  return Object.entries(wanted).every(
    ([place, entry]) =>
      place === "" ||
      entry.optional === true ||
      (installed[place]?.version === entry.version && existsSync(inRoot(place))),
  );
}

/**
 * Installs what the lock file says, and resolves with whether there was anything to do.
 *
 * Not `npm ci`: that refuses a lock file that leaves out an optional package of another platform, and a registry mirror
 * that lacks such packages writes exactly such lock files. `npm install --no-save` follows the lock file and leaves it alone.
 */
export async function ensurePackages() {
  if (packagesAreInstalled()) return false;
  await run("npm", ["install", "--no-save", "--no-audit", "--no-fund", "--loglevel", "error"], { log: "npm-install" });
  if (!packagesAreInstalled())
    throw new Error("npm install succeeded, but node_modules is not what package-lock.json says.");
  return true;
}
