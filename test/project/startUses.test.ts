/**
 * `npm start` truly uses the tools that the project names: it is run here with its own results forgotten, and every
 * script that any of its processes loads is written down by V8.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { inputsFile } from "../../scripts/build.mjs";
import { inRoot } from "../../scripts/lib/paths.mjs";
import { run } from "../../scripts/lib/run.mjs";
import { markUndone } from "../../scripts/lib/stamp.mjs";

const coverage = mkdtempSync(path.join(tmpdir(), "nosa-start-"));
let output = "";
let loaded: readonly string[] = [];

beforeAll(async () => {
  for (const stamp of ["native", "bundles", "vsix"]) markUndone(stamp);
  const { stdout } = await run(process.execPath, [inRoot("scripts/start.mjs"), "--no-open", "--in-browser"], {
    env: { NODE_V8_COVERAGE: coverage },
    log: "start-traced",
  });
  output = stdout;
  loaded = scriptsOf(coverage);
}, 600_000);

afterAll(() => rmSync(coverage, { recursive: true, force: true }));

describe("npm start", () => {
  test("gets ready and says so", () => expect(output).toMatch(/Ready after [\d.]+ s\./));

  test.each(["esbuild", "cmake-js", "@vscode/vsce", "typescript"])("runs %s", (name) => {
    expect(loaded.filter((url) => url.includes(`/node_modules/${name}/`)).length).toBeGreaterThan(0);
  });

  test("checks the extension against @types/vscode before it packages it", async () => {
    const { stdout } = await run(process.execPath, [
      inRoot("node_modules/typescript/bin/tsc"),
      "-p",
      "tsconfig.json",
      "--listFilesOnly",
    ]);
    expect(stdout).toContain("node_modules/@types/vscode/index.d.ts");
  });

  test("bundles vscode-languageclient into the extension and vscode-languageserver into the engine", () => {
    const inputs = JSON.parse(readFileSync(inputsFile, "utf8")) as Record<string, Record<string, number>>;
    const bytesOf = (bundle: string, name: string): number =>
      Object.entries(inputs[bundle] ?? {})
        .filter(([input]) => input.startsWith(`node_modules/${name}/`))
        .reduce((sum, [, bytes]) => sum + bytes, 0);
    expect(bytesOf("dist/connection.js", "vscode-languageclient")).toBeGreaterThan(10_000);
    expect(bytesOf("dist/engine.js", "vscode-languageserver")).toBeGreaterThan(10_000);
    expect(bytesOf("dist/connection.js", "vscode-languageserver"), "the extension has no server in it").toBe(0);
    expect(bytesOf("dist/extension.js", "vscode-languageclient"), "it is loaded once the extension is active").toBe(0);
  });

  test("compiles the addon against node-addon-api", () => {
    const commands = JSON.parse(readFileSync(inRoot("build/compile_commands.json"), "utf8")) as {
      file: string;
      command: string;
    }[];
    const binding = commands.find(({ file }) => file.endsWith("native/addon/binding.cpp"));
    expect(binding?.command).toContain("node_modules/node-addon-api");
    expect(readFileSync(inRoot("build/CMakeCache.txt"), "utf8")).toContain("CMAKE_JS_INC");
  });
});

/** Addresses of all scripts that the traced processes loaded. */
function scriptsOf(folder: string): string[] {
  const urls = readdirSync(folder).flatMap((name) => {
    const { result } = JSON.parse(readFileSync(path.join(folder, name), "utf8")) as { result: { url: string }[] };
    return result.map(({ url }) => url);
  });
  return [...new Set(urls)];
}
