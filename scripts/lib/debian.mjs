// Installs Debian packages, where that is possible: apt-get exists and we are root.
import { existsSync } from "node:fs";
import { run } from "./run.mjs";
import { Advice } from "./steps.mjs";

let listsAreFresh = false;

/** Whether packages may be installed here. */
export function mayInstall() {
  return process.getuid?.() === 0 && existsSync("/usr/bin/apt-get");
}

/** Installs the named packages, or says which ones somebody has to install. */
export async function installDebian(packages, why) {
  if (!mayInstall()) {
    throw new Advice(`${why} Please install: sudo apt-get install ${packages.join(" ")}`);
  }
  const patience = ["-o", "DPkg::Lock::Timeout=300"];
  const env = { DEBIAN_FRONTEND: "noninteractive" };
  if (!listsAreFresh) {
    await run("apt-get", [...patience, "update", "-qq"], { env, log: "apt-update" });
    listsAreFresh = true;
  }
  await run("apt-get", [...patience, "install", "-y", "-qq", "--no-install-recommends", ...packages], {
    env,
    log: "apt-install",
  });
}
