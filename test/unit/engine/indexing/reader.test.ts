import * as fs from "node:fs";
import * as path from "node:path";
import { describe, expect, it } from "vitest";
import { Cancelled } from "../../../../engine/errors";
import { FileReader, type ReadOptions } from "../../../../engine/indexing/reader";
import type { ModelText } from "../../../../engine/sessions/modelText";
import { copyText } from "../../../support/copyText";
import { temporaryFolder, writeFiles } from "../../../support/folders";

function scanned(root: string, paths: readonly string[]): ReadOptions["files"] {
  return paths.map((name) => {
    const { size, mtimeMs } = fs.statSync(path.join(root, name));
    return { path: name, bytes: size, mtimeMs, blob: "" };
  });
}

function setUp(files: Record<string, string | Uint8Array>) {
  const root = temporaryFolder();
  writeFiles(root, files);
  const tokenized: string[] = [];
  const base = copyText();
  const text: ModelText = {
    ...base,
    file: (name, content, signal) => {
      tokenized.push(name);
      return base.file(name, content, signal);
    },
  };
  const reader = new FileReader();
  const read = (more: Partial<ReadOptions> = {}) =>
    reader.read({
      root,
      text,
      files: more.files ?? scanned(root, Object.keys(files)),
      fileBytesMax: 100_000,
      tokensMax: 100_000,
      signal: new AbortController().signal,
      onProgress: () => undefined,
      ...more,
    });
  return { root, read, tokenized };
}

describe("FileReader", () => {
  it("tokenises what is new or changed, and nothing else", async () => {
    const { root, read, tokenized } = setUp({ "a.ts": "a\n", "b.ts": "b\n" });
    const first = await read();
    expect(first.files.map(({ record }) => record.path)).toEqual(["a.ts", "b.ts"]);
    fs.writeFileSync(path.join(root, "b.ts"), "bb\n");
    // Touched, but the same.
    fs.utimesSync(path.join(root, "a.ts"), new Date(), new Date(Date.now() + 5_000));
    tokenized.length = 0;
    const second = await read({ files: scanned(root, ["a.ts", "b.ts"]) });
    expect(tokenized).toEqual(["b.ts"]);
    expect(second.files[0]?.record.hash).toBe(first.files[0]?.record.hash);
    expect(second.files[0]?.record.mtimeMs).not.toBe(first.files[0]?.record.mtimeMs);
    expect(second.files[1]?.record.hash).not.toBe(first.files[1]?.record.hash);
  });

  it("fills the budget with the most useful files, and small ones may still fit behind a large one", async () => {
    const { read } = setUp({
      "first.ts": "let x;\n".repeat(40),
      "large.ts": "let x;\n".repeat(700),
      "small.ts": "x\n",
    });
    const { files, leftOut } = await read({ tokensMax: 1_000 });
    expect(files.map(({ record }) => record.path)).toEqual(["first.ts", "small.ts"]);
    expect(leftOut).toEqual([{ path: "large.ts", reason: "budget" }]);
  });

  it("does not read thousands of files when the budget is used up", async () => {
    const many = Object.fromEntries(Array.from({ length: 300 }, (_, index) => [`f${index}.ts`, "let x;\n".repeat(50)]));
    const { read, tokenized } = setUp(many);
    const { files, leftOut } = await read({ tokensMax: 1_000 });
    expect(files.length + leftOut.length).toBe(300);
    expect(tokenized.length).toBeLessThan(60);
  });

  it("says why a file is left out, and that one that is gone cannot be read", async () => {
    const { root, read } = setUp({ "a.ts": "a\n", "b.bin": Uint8Array.of(0, 1, 2, 0), "c.ts": "c\n" });
    const files = scanned(root, ["a.ts", "b.bin", "c.ts"]);
    fs.rmSync(path.join(root, "c.ts"));
    const { leftOut } = await read({ files });
    expect(leftOut).toEqual([
      { path: "b.bin", reason: "binary" },
      { path: "c.ts", reason: "unreadable" },
    ]);
  });

  it("stops when it is cancelled", async () => {
    const { read } = setUp({ "a.ts": "a\n" });
    const stop = new AbortController();
    stop.abort();
    await expect(read({ signal: stop.signal })).rejects.toBeInstanceOf(Cancelled);
  });
});
