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
    for (const target of ["linux-armhf", "web", "amiga-68k"])
      await expect(toolsFor(target)).rejects.toThrow(new RegExp(`There is no package for ${target}: \\w.+\\.$`));
    const words = [inRoot("scripts/package.mjs"), "--target", "linux-armhf"];
    const { code, stdout } = await run(process.execPath, words, { allowFailure: true, log: "package-armhf" });
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

  test("tells programs for Windows and macOS by what they begin with", () => {
    const windows = Buffer.alloc(512);
    windows.write("MZ", "latin1");
    windows.writeUInt32LE(0x80, 0x3c);
    windows.write("PE\0\0", 0x80, "latin1");
    windows.writeUInt16LE(0xaa64, 0x84);
    const mac = Buffer.alloc(64);
    mac.writeUInt32LE(0xfeedfacf, 0);
    mac.writeUInt32LE(0x01000007, 4);
    const written = (name: string, bytes: Buffer): string => {
      writeFileSync(path.join(scratch, name), bytes);
      return path.join(scratch, name);
    };
    const fits = { "win32-arm64": written("windows.node", windows), "darwin-x64": written("mac.node", mac) };
    for (const target of ["win32-x64", "win32-arm64", "darwin-x64", "darwin-arm64", "alpine-x64", "linux-x64"]) {
      for (const [made, file] of Object.entries(fits)) {
        const check = (): void => assertMadeFor(target, file);
        if (target === made) expect(check).not.toThrow();
        else expect(check).toThrow(`is no program for ${target}`);
      }
    }
    // A file that ends before it says what it is.
    expect(() => assertMadeFor("win32-x64", written("short.node", Buffer.from("MZ")))).toThrow("is no program");
  });
});
