/** What is carried to another machine in parts arrives there whole, in any order, or it is said what is missing. */
import { spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { packed, writeBatches } from "../../../../bench/portable/batches.mjs";

let scratch = "";
let work = "";
beforeEach(() => {
  scratch = mkdtempSync(path.join(tmpdir(), "nosa-batches-"));
  work = path.join(scratch, "work");
});
afterEach(() => rmSync(scratch, { recursive: true, force: true }));

const within = (...parts: readonly string[]): string => path.join(scratch, ...parts);

function unpack(folder: string): { readonly status: number | null; readonly stdout: string } {
  const { status, stdout } = spawnSync("bash", [path.join(folder, "unpack.sh"), work], { encoding: "utf8" });
  return { status, stdout };
}

/** A program of one file, and a model. */
function items(program: string, model: Buffer): { readonly file: string; readonly place: string }[] {
  mkdirSync(within("program", "bin"), { recursive: true });
  writeFileSync(within("program", "bin", "run"), program, { mode: 0o755 });
  spawnSync("tar", ["-C", within("program"), "-cJf", within("program.tar.xz"), "."]);
  writeFileSync(within("model.gguf"), model);
  return [
    { file: within("program.tar.xz"), place: "nosa" },
    { file: within("model.gguf"), place: "models" },
  ];
}

test("parts that come in any order, some of them twice, become what was packed", () => {
  const model = randomBytes(25_000);
  const batches = writeBatches(items("first", model), { into: within("out"), bytesMax: 10_000 });
  expect(batches.length).toBeGreaterThan(2);
  for (const { bytes } of batches) expect(bytes).toBeLessThanOrEqual(10_000);

  const folders = batches.map(({ folder }) => folder).toReversed();
  const [first, ...others] = folders;
  expect(unpack(first ?? "").stdout).toMatch(/model\.gguf: [12] of 3 parts are missing/);
  for (const folder of others) expect(unpack(folder).status).toBe(0);
  const again = unpack(first ?? "");
  expect(again.stdout).toBe("everything is there\n");

  expect(readFileSync(path.join(work, "nosa/bin/run"), "utf8")).toBe("first");
  expect(statSync(path.join(work, "nosa/bin/run")).mode & 0o100).toBe(0o100);
  expect(readFileSync(path.join(work, "models/model.gguf")).equals(model)).toBe(true);
  expect(readdirSync(path.join(work, "parts"))).toEqual([]);
});

test("the product takes the model for checked: its note tells size, time and checksum", () => {
  const model = randomBytes(3_000);
  for (const { folder } of writeBatches(items("x", model), { into: within("out"), bytesMax: 10_000 })) unpack(folder);
  const file = path.join(work, "models/model.gguf");
  const { size, mtimeMs } = statSync(file);
  const sha256 = createHash("sha256").update(model).digest("hex");
  expect(JSON.parse(readFileSync(`${file}.verified.json`, "utf8"))).toEqual({ bytes: size, mtimeMs, sha256 });
});

test("a newer program takes the place of the older one; the model need not come again", () => {
  const model = randomBytes(3_000);
  for (const { folder } of writeBatches(items("old", model), { into: within("out"), bytesMax: 10_000 })) unpack(folder);
  writeFileSync(path.join(work, "nosa/left-over"), "");
  const [program] = items("new", model);
  if (program === undefined) throw new Error("There is no program.");
  const [batch] = writeBatches([program], { into: within("newer"), bytesMax: 10_000 });
  expect(unpack(batch?.folder ?? "").stdout).toContain("program.tar.xz: nosa");
  expect(readdirSync(path.join(work, "nosa"))).toEqual(["bin"]);
  expect(readFileSync(path.join(work, "nosa/bin/run"), "utf8")).toBe("new");
  expect(statSync(path.join(work, "models/model.gguf")).size).toBe(3_000);
});

test("a damaged part is refused, and its thing stays missing", () => {
  const [batch] = writeBatches(items("x", randomBytes(3_000)), { into: within("out"), bytesMax: 10_000 });
  const folder = batch?.folder ?? "";
  const model = readdirSync(folder).find(
    (name) => name.endsWith(".part") && statSync(path.join(folder, name)).size === 3_000,
  );
  writeFileSync(path.join(folder, model ?? ""), randomBytes(3_000));
  const { status, stdout } = unpack(folder);
  expect(status).toBe(1);
  expect(stdout).toMatch(/is damaged[\s\S]*model\.gguf: 1 of 1 parts are missing/);
});

test("no batch holds more than it may, and no part is left behind", () => {
  const parts = [9, 4, 6, 1, 5, 5].map((bytes) => ({ bytes }));
  const batches: { bytes: number }[][] = packed(parts, 10);
  expect(batches.flat().length).toBe(parts.length);
  for (const batch of batches) expect(batch.reduce((sum, { bytes }) => sum + bytes, 0)).toBeLessThanOrEqual(10);
  expect(batches.length).toBe(3);
});
