// What the tests need beside what a build needs. Debian's names; where we may not install, the test that needs one fails
// and says which package it is.
import { existsSync } from "node:fs";
import { ensureChromium } from "./chromium.mjs";
import { installDebian, mayInstall } from "./debian.mjs";
import { versionOf } from "./run.mjs";
import { ensurePip, ensureToolchain } from "./toolchain.mjs";

const present = async (program) => (await versionOf(program)) !== undefined;
const fileOf = (...names) => names.some((name) => existsSync(name));

/** Package → whether it is there already. */
const wanted = {
  "ninja-build": () => present("ninja"),
  "libgtest-dev": () => fileOf("/usr/include/gtest/gtest.h", "/usr/local/include/gtest/gtest.h"),
  clang: () => present("clang++"),
  "libclang-rt-14-dev": async () => (await fuzzerLibraryFolder()) !== undefined,
  "g++-aarch64-linux-gnu": () => present("aarch64-linux-gnu-g++"),
  git: () => present("git"),
};

/** Whether clang brings the library that fuzz targets are linked with. */
async function fuzzerLibraryFolder() {
  const folder = await versionOf("clang++", ["-print-resource-dir"]);
  if (folder === undefined) return undefined;
  const names = [`${folder}/lib/linux/libclang_rt.fuzzer-x86_64.a`, `${folder}/lib/linux/libclang_rt.fuzzer-aarch64.a`];
  return fileOf(...names) ? folder : undefined;
}

/** Installs what is missing, where we may; resolves with the names of what was installed. */
export async function ensureTestTools() {
  const added = [...(await ensureToolchain())];
  const missing = [];
  for (const [name, isThere] of Object.entries(wanted)) {
    if (!(await isThere())) missing.push(name);
  }
  if (missing.length > 0 && mayInstall()) {
    await installDebian(missing, "The tests need more tools.");
    added.push(...missing);
  }
  if (mayInstall() && (await ensureChromium())) added.push("chromium");
  if (await ensurePip()) added.push("python3-pip");
  return added;
}
