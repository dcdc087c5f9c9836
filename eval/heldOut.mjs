// Repositories that no adapter was trained on: the packages of the "eval" split in training/manifest.json, at its versions, with its digests.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { cacheFolder } from "../bench/lib/cacheFolder.mjs";

const training = fileURLToPath(new URL("../training/", import.meta.url));

/** `[{name, version, licence, files: [{path, text}]}]`; fetched from the package registries when they are not in the cache folder. */
export function heldOutRepositories() {
  const folder = cacheFolder("eval");
  const file = path.join(folder, "eval.jsonl.gz");
  if (!existsSync(file)) fetchInto(folder);
  const manifest = JSON.parse(readFileSync(path.join(training, "manifest.json"), "utf8"));
  const known = new Map(manifest.filter(({ split }) => split === "eval").map((each) => [keyOf(each), each]));
  return gunzipSync(readFileSync(file))
    .toString("utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line))
    .map((row) => {
      const files = row.files.map(([name, text]) => ({ path: name, text }));
      const wanted = known.get(keyOf(row));
      if (wanted === undefined || wanted.sha256 !== digest(files)) {
        throw new Error(
          `${keyOf(row)} in ${file} is not what training/manifest.json describes: delete the file and run this again.`,
        );
      }
      return { name: keyOf(row), version: row.version, licence: row.licence, files };
    });
}

function fetchInto(folder) {
  console.log(`Fetching the held-out packages from their registries into ${folder}, once.`);
  const pins = path.join(training, "manifest.json");
  const words = ["-m", "nosa_train.repos", "--split", "eval", "--pinned", pins, "--out", folder];
  const { status } = spawnSync("python3", words, { cwd: training, stdio: "inherit" });
  if (status !== 0)
    throw new Error("The held-out packages could not be fetched: pip, npm, cargo and go have to be there.");
}

function keyOf({ registry, name }) {
  return `${registry}/${name}`;
}

/** As nosa_train/repos.py has it. */
function digest(files) {
  const hash = createHash("sha256");
  for (const file of files) hash.update(`${file.path}\0${file.text}\0`);
  return hash.digest("hex");
}
