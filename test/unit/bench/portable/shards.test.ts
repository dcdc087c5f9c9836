/** Shares run side by side, each on cores of its own; what they answered comes back whole, however they ended. */
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { inRoot } from "../../../../scripts/lib/paths.mjs";

let work = "";
beforeEach(() => {
  work = mkdtempSync(path.join(tmpdir(), "nosa-shards-"));
  cpSync(inRoot("bench/portable/shards.py"), path.join(work, "shards.py"));
  mkdirSync(path.join(work, "node/bin"), { recursive: true });
  symlinkSync(process.execPath, path.join(work, "node/bin/node"));
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(work, { recursive: true, force: true });
});

/** Stands for bench/run.mjs and eval/run.mjs. */
function program(kind: string, source: string): void {
  mkdirSync(path.join(work, "nosa", kind), { recursive: true });
  const words = `const word = (name) => process.argv[process.argv.indexOf(name) + 1];`;
  const imports = `import { appendFileSync, mkdirSync, writeFileSync } from "node:fs";`;
  writeFileSync(path.join(work, "nosa", kind, "run.mjs"), `${imports}\n${words}\n${source}`);
}

function shards(...words: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync("python3", [path.join(work, "shards.py"), ...words], {
    encoding: "utf8",
  });
  expect(stderr).toBe("");
  expect(status).toBe(0);
  return stdout;
}

const ended = (name: string): Promise<void> =>
  expect.poll(() => shards("status", name), { timeout: 15_000, interval: 200 }).toContain(`${name}: has ended`);

function collected(name: string): string {
  shards("collect", name, path.join(work, "all.tgz"));
  mkdirSync(path.join(work, "got"));
  spawnSync("tar", ["-xzf", path.join(work, "all.tgz"), "-C", path.join(work, "got")]);
  return path.join(work, "got", name);
}

const answers = `
mkdirSync(process.env.NOSA_BENCH_CACHE + "/replay", { recursive: true });
const file = process.env.NOSA_BENCH_CACHE + "/replay/model.jsonl";
appendFileSync(file, JSON.stringify({ shard: word("--shard"), threads: word("--threads") }) + "\\n");
`;

test("every share runs once, and the answers are put together", async () => {
  program("bench", answers);
  shards("start", "all", "--shards", "5", "--processes", "2", "--gpus", "0", "--", "bench", "replay");
  await ended("all");
  const lines = readFileSync(path.join(collected("all"), "replay/model.jsonl"), "utf8")
    .trim()
    .split("\n");
  const told = lines.map((line) => (JSON.parse(line) as { shard: string }).shard);
  expect(told.toSorted()).toEqual(["0/5", "1/5", "2/5", "3/5", "4/5"]);
});

test("when the time is over, what was answered is there, without the line that was being written", async () => {
  program("bench", `${answers}\nappendFileSync(file, '{"cut');\nsetInterval(() => undefined, 1000);`);
  shards(
    "start",
    "late",
    "--shards",
    "2",
    "--processes",
    "2",
    "--gpus",
    "0",
    "--seconds",
    "2",
    "--",
    "bench",
    "replay",
  );
  await ended("late");
  expect(shards("status", "late")).toMatch(/share 1 the time was over/);
  const lines = readFileSync(path.join(collected("late"), "replay/model.jsonl"), "utf8");
  expect(lines.split("\n").length).toBe(3);
  expect(lines).not.toContain("cut");
});

test("an evaluation's files come back under the names that its merge takes, half written ones stay", async () => {
  program("eval", `writeFileSync(word("--json"), word("--shard") === "0/2" ? '{"results":[]}' : '{"resu');`);
  shards("start", "quality", "--shards", "2", "--processes", "1", "--gpus", "0", "--", "eval", "quality");
  await ended("quality");
  const folder = path.join(collected("quality"), "results");
  expect(JSON.parse(readFileSync(path.join(folder, "quality-0.json"), "utf8"))).toEqual({ results: [] });
  expect(() => readFileSync(path.join(folder, "quality-1.json"))).toThrow();
});

test("what is stopped ends with everything that it started", async () => {
  program("bench", `console.log(process.pid); setInterval(() => undefined, 1000);`);
  shards("start", "endless", "--gpus", "0", "--", "bench", "engine");
  const log = path.join(work, "runs/endless/log-0.txt");
  await expect.poll(() => shards("status", "endless"), { timeout: 10_000 }).toMatch(/share 0 runs for \d+ s: \d+/);
  shards("stop", "endless");
  expect(() => process.kill(Number(readFileSync(log, "utf8")), 0)).toThrow("ESRCH");
});

test("a run keeps to the GPUs that it was given", async () => {
  program("bench", `console.log("GPU " + process.env.CUDA_VISIBLE_DEVICES);`);
  writeFileSync(path.join(work, "nvidia-smi"), "#!/bin/sh\nexit 1\n", { mode: 0o755 });
  vi.stubEnv("PATH", `${work}:${process.env.PATH ?? ""}`);
  vi.stubEnv("CUDA_VISIBLE_DEVICES", "3,5");
  shards("start", "apart", "--shards", "3", "--processes", "2", "--", "bench", "replay");
  await ended("apart");
  const said = shards("status", "apart");
  expect(said).toMatch(/share 0 ended .*: GPU 3/);
  expect(said).toMatch(/share 1 ended .*: GPU 5/);
});
