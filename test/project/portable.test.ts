/** What is carried to a machine without node_modules is all that benchmarks and evaluations import there. */
import { cpSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, expect, test } from "vitest";
import { programFiles } from "../../bench/portable/files.mjs";
import { inRoot } from "../../scripts/lib/paths.mjs";
import { run } from "../../scripts/lib/run.mjs";

const scratch = mkdtempSync(path.join(tmpdir(), "nosa-portable-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const files: readonly string[] = await programFiles();

test("everything that benchmarks and evaluations import is among it, and the product's code is bundled there", async () => {
  for (const file of files) {
    mkdirSync(path.dirname(path.join(scratch, file)), { recursive: true });
    cpSync(inRoot(file), path.join(scratch, file));
  }
  const programs = ["cache", "cpu", "engine", "replay"].map((name) => `./bench/${name}.mjs`);
  const parts = files.filter((file) => /^bench\/cache\/\w+\.mjs$/.test(file)).map((file) => `./${file}`);
  const evaluations = ["fim", "infilling", "quality"].map((name) => `./eval/${name}.mjs`);
  const imports = [...programs, ...parts, ...evaluations].map((file) => `await import(${JSON.stringify(file)});`);
  const check = `${imports.join("\n")}
    const { corpusSources, corpus } = await import("./bench/lib/corpus.mjs");
    if (corpusSources().length === 0 || corpus(4096, (text) => text.length / 3.6).length === 0) throw new Error("no code");
    const { packageSources } = await import("./bench/lib/code.mjs");
    if (packageSources().length === 0) throw new Error("no sources");
    const { getLlama } = await import("node-llama-cpp");
    const llama = await getLlama({ gpu: false, build: "never", logLevel: "error" });
    await llama.dispose();
    console.log("everything is there");`;
  // A program, as llama.cpp's bindings start others the way that they were started.
  writeFileSync(path.join(scratch, "check.mjs"), check);
  const { stdout } = await run(process.execPath, ["check.mjs"], { cwd: scratch, log: "portable-imports" });
  expect(stdout).toContain("everything is there");
});

test("nothing of it is of another system, or larger than it has to be", () => {
  const superfluous = /x64-cuda|vulkan|gitRelease\.bundle|^dist\/extension|^bench\/results\//;
  expect(files.filter((file) => superfluous.test(file))).toEqual([]);
  const megabytes = files.reduce((sum, file) => sum + statSync(inRoot(file)).size, 0) / 2 ** 20;
  expect(megabytes).toBeLessThan(80);
});
