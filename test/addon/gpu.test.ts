// Looking for a GPU never does harm: it happens in another process, and whatever is wrong there is a sentence.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import * as path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { cudaLibraryIn, findGpu } from "../../engine/sessions/gpu";

const addonPath = path.resolve(__dirname, "../../dist/nosa.node");
let folder = "";

beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), "nosa-gpu-"));
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

const fakeAddon = (body: string): string => {
  const file = path.join(folder, `addon-${Math.random().toString(36).slice(2)}.cjs`);
  writeFileSync(file, `exports.probeGpu = () => { ${body} };`);
  return file;
};
const someLibrary = (): string => {
  const file = path.join(folder, "library.so");
  writeFileSync(file, "no library at all");
  return file;
};

describe("findGpu", () => {
  it("says that a package without a CUDA part has none", async () => {
    const found = await findGpu({ addonPath, libraryPath: cudaLibraryIn(folder) });
    expect(found).toEqual({ usable: false, reason: "This package has no CUDA part." });
  });

  it("says why a file that is no library cannot be loaded", async () => {
    const found = await findGpu({ addonPath, libraryPath: someLibrary() });
    expect(found.usable).toBe(false);
    expect(found.reason).toMatch(/^The CUDA part cannot be loaded: .*library\.so/);
  });

  it("survives a probe that ends its process", async () => {
    const found = await findGpu({
      addonPath: fakeAddon("process.kill(process.pid, 'SIGSEGV'); for (;;);"),
      libraryPath: someLibrary(),
    });
    expect(found).toEqual({ usable: false, reason: "Looking for a GPU ended the process that did it (SIGSEGV)." });
  });

  it("does not trust an answer that is none", async () => {
    const found = await findGpu({ addonPath: fakeAddon("return { usable: 'yes' };"), libraryPath: someLibrary() });
    expect(found).toEqual({ usable: false, reason: "Looking for a GPU gave no answer." });
  });

  it("passes on what a working probe found", async () => {
    const answer = { usable: true, reason: "", gpu: "Some GPU", freeBytes: 5, totalBytes: 7 };
    const found = await findGpu({
      addonPath: fakeAddon(`return ${JSON.stringify(answer)};`),
      libraryPath: someLibrary(),
    });
    expect(found).toEqual(answer);
  });
});
