/** Packages for other systems than this one: which there are, why not the others, and what is inside. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { inRoot } from "../../scripts/lib/paths.mjs";
import { run } from "../../scripts/lib/run.mjs";
import { assertMadeFor, hostTarget, knownTargets, toolsFor } from "../../scripts/lib/targets.mjs";
import { zipEntries } from "../../scripts/lib/zip.mjs";
import { packageVsix } from "../../scripts/package.mjs";

const scratch = mkdtempSync(path.join(tmpdir(), "nosa-targets-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** What the addon for a processor begins with, and nothing more. */
function programFor(machine: number): string {
  const head = Buffer.alloc(64);
  head.write("\x7fELF", "latin1");
  head.writeUInt16LE(machine, 18);
  const file = path.join(scratch, `${machine}.node`);
  writeFileSync(file, head);
  return file;
}

const x64 = 62;
const arm64 = 183;
const other = hostTarget === "linux-arm64" ? "linux-x64" : "linux-arm64";
const processor = other === "linux-x64" ? x64 : arm64;

describe("a package for another system", () => {
  test("exists, or there is a sentence why not, for each one that VS Code knows", () => {
    const { Targets } = createRequire(import.meta.url)("@vscode/vsce/out/package") as { Targets: ReadonlySet<string> };
    expect([...knownTargets].toSorted()).toEqual([...Targets].toSorted());
  });

  test("is refused at once, in a sentence, where it cannot be built", async () => {
    for (const target of ["win32-x64", "darwin-arm64", "web", "amiga-68k"])
      await expect(toolsFor(target)).rejects.toThrow(new RegExp(`There is no package for ${target}: \\w.+\\.$`));
    const words = [inRoot("scripts/package.mjs"), "--target", "win32-x64"];
    const { code, stdout } = await run(process.execPath, words, { allowFailure: true, log: "package-win32" });
    expect([code, stdout]).toEqual([1, expect.not.stringContaining(".vsix")]);
  });

  test("holds that system's addon and nothing that only runs on this one", async () => {
    const file = path.join(scratch, "other.vsix");
    await packageVsix({ target: other, addon: programFor(processor), file });
    const entries = zipEntries(file);
    expect(entries.find(({ name }) => name === "extension/dist/nosa.node")?.bytes).toBe(64);
    expect(entries.map(({ name }) => name)).not.toContain("extension/dist/libnosa_cuda.so");
    // Ours is still in its place: engines that run here load it.
    expect(readFileSync(inRoot("dist/nosa.node")).length).toBeGreaterThan(300_000);
  });

  test("takes no addon of the wrong kind", async () => {
    const wrong = programFor(other === "linux-x64" ? arm64 : x64);
    await expect(packageVsix({ target: other, addon: wrong, file: path.join(scratch, "x.vsix") })).rejects.toThrow(
      `is no program for ${other}`,
    );
    expect(() => assertMadeFor(hostTarget, inRoot("dist/nosa.node"))).not.toThrow();
  });
});
