// Consecutive releases of public packages as repositories: fetched through their registries' ordinary clients, unpacked, never built or run.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync } from "node:fs";
import path from "node:path";
import { cacheFolder } from "../lib/cacheFolder.mjs";
import { addedBetweenFolders } from "./diff.mjs";
import { mayBeSource, sourcesAmong } from "./sources.mjs";

/**
 * None of these is a package that adapters were trained on (training/manifest.json). Each is hand-written source as its author ships it, small enough to be
 * read as a whole. `versions`: releases in order; each with the next is one step.
 */
export const packages = [
  { registry: "npm", name: "pino", licence: "MIT", versions: ["9.4.0", "9.8.0", "10.0.0", "10.2.0", "10.4.0"] },
  { registry: "pypi", name: "structlog", licence: "MIT", versions: ["24.4.0", "25.1.0", "25.3.0", "25.5.0", "26.1.0"] },
  { registry: "npm", name: "commander", licence: "MIT", versions: ["12.0.0", "13.0.0", "14.0.0", "15.0.0", "15.1.0"] },
  { registry: "pypi", name: "tomlkit", licence: "MIT", versions: ["0.13.3", "0.14.0", "0.15.2"] },
  { registry: "npm", name: "sharp", licence: "Apache-2.0", versions: ["0.32.6", "0.33.0", "0.34.0", "0.35.0"] },
  { registry: "pypi", name: "cattrs", licence: "MIT", versions: ["24.1.3", "25.1.1", "25.3.0", "26.1.0", "26.2.1"] },
];

/** From each release to the next: `{name, from, to, licence, base, next, added}`; files are `[{path, text}]`, and `added` as in diff.mjs. */
export function* steps() {
  for (const { registry, name, licence, versions } of packages) {
    for (let at = 1; at < versions.length; at += 1) {
      const [from, to] = [versions[at - 1], versions[at]];
      const [baseFolder, nextFolder] = [unpacked(registry, name, from), unpacked(registry, name, to)];
      const added = addedBetweenFolders(baseFolder, nextFolder);
      yield { name, licence, from, to, base: filesOf(baseFolder), next: filesOf(nextFolder), added };
    }
  }
}

function filesOf(folder) {
  const names = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(folder, path.join(entry.parentPath, entry.name)).replaceAll(path.sep, "/"));
  const files = names.filter(mayBeSource);
  return sourcesAmong(files.map((name) => ({ path: name, text: readFileSync(path.join(folder, name), "utf8") })));
}

/** The folder of one release in the benchmarks' cache. */
function unpacked(registry, name, version) {
  const folder = path.join(cacheFolder("releases"), `${registry}-${name.replaceAll("/", "-")}-${version}`);
  if (existsSync(folder)) return folder;
  const aside = `${folder}.part`;
  rmSync(aside, { recursive: true, force: true });
  mkdirSync(aside, { recursive: true });
  if (registry === "npm") {
    run("npm", ["pack", "--silent", "--ignore-scripts", `${name}@${version}`], aside);
    const [archive] = readdirSync(aside);
    run("tar", ["-xzf", archive, "--strip-components=1"], aside);
    rmSync(path.join(aside, archive));
  } else {
    run("pip", ["download", "-q", "--no-deps", "--only-binary=:all:", "-d", ".", `${name}==${version}`], aside);
    const [archive] = readdirSync(aside);
    run("python3", ["-m", "zipfile", "-e", archive, "."], aside);
    rmSync(path.join(aside, archive));
  }
  renameSync(aside, folder);
  return folder;
}

function run(program, words, cwd) {
  const { status, stderr } = spawnSync(program, words, { cwd, encoding: "utf8" });
  if (status !== 0) throw new Error(`${program} ${words.join(" ")} failed: ${stderr}`);
}
