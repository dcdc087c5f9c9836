/** Files of saved KV that are not what they were, with the real addon: set aside, read again, and the answer is the same. */

import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CancellationTokenSource } from "vscode-languageserver-protocol/node";
import { parseRecord } from "../../engine/contexts/context";
import { silentLog } from "../../engine/log";
import { dataPaths } from "../../engine/paths";
import { openSession } from "../../engine/sessions/openSession";
import { writeTinyGguf } from "../../scripts/make-tiny-model.mjs";
import { bundleEngine } from "../support/engineBundle";
import { EngineHarness } from "../support/engineHarness";
import { temporaryFolder, writeFiles } from "../support/folders";
import { random, testSeed } from "../support/random";
import { tinyModels } from "../support/tinyModel";

let tiny: ReturnType<typeof tinyModels>;
let distFolder: string;

beforeAll(async () => {
  tiny = tinyModels();
  distFolder = fs.mkdtempSync(path.join(os.tmpdir(), "nosa-damage-"));
  await bundleEngine(distFolder);
}, 60_000);

afterAll(() => {
  tiny.remove();
  fs.rmSync(distFolder, { recursive: true, force: true });
});

function start(folder?: string, file = "llama-Q8_0.gguf"): Promise<EngineHarness> {
  return EngineHarness.start({
    ...(folder === undefined ? {} : { folder }),
    resolved: {
      id: "tiny",
      name: "Tiny",
      path: path.resolve(tiny.folder, file),
      segmentTokensMax: path.isAbsolute(file) ? 8_192 : 1_024,
      sha256: "",
    },
    openSession: (resolved, settings, store) =>
      openSession({ distFolder, resolved, settings: { ...settings, threads: 2 }, store, log: silentLog }),
  });
}

function repository(): string {
  const root = temporaryFolder();
  const { between } = random(testSeed());
  const text = (name: string): string =>
    Array.from({ length: 90 }, (_, index) => `${name}_${index} = ${between(0, 1e9)}\n`).join("");
  writeFiles(root, { "a.py": text("a"), "b.py": text("b"), "c.py": text("c") });
  return root;
}

const question = "What is this?";

/** The repository as it was read and answered from, its segments (the largest first), and an engine that is to open it. */
async function readOnce({ withBeginning = false } = {}) {
  const first = await start();
  const client = await first.connect();
  const root = repository();
  const summary = await client.index(root);
  const { text, usage } = await client.ask(root, question, { tokensMax: 24 });
  while (withBeginning && !hasSavedBeginning(first.folder)) await new Promise((resolve) => setTimeout(resolve, 20));
  expect(usage.attendedBlocks).toBeLessThan(usage.totalBlocks);
  await first.stop();
  const folder = path.join(dataPaths(first.folder).contexts, "segments");
  const files = fs
    .readdirSync(folder)
    .map((name) => path.join(folder, name))
    .sort((a, b) => fs.statSync(b).size - fs.statSync(a).size);
  return { home: first.folder, root, summary, text, files };
}

/** Whether what every chat begins with is saved: a new engine then reads ahead what it attends to. */
function hasSavedBeginning(home: string): boolean {
  const folder = path.join(dataPaths(home).contexts, "records");
  return fs
    .readdirSync(folder)
    .filter((name) => name.endsWith(".json"))
    .some((name) => (parseRecord(JSON.parse(fs.readFileSync(path.join(folder, name), "utf8")))?.tails.length ?? 0) > 0);
}

const setAside = (home: string): number => fs.readdirSync(path.join(dataPaths(home).contexts, "damaged")).length;

function flip(file: string, at: number): void {
  const descriptor = fs.openSync(file, "r+");
  const byte = Buffer.alloc(1);
  fs.readSync(descriptor, byte, 0, 1, at);
  fs.writeSync(descriptor, Buffer.of((byte[0] ?? 0) ^ 0x10), 0, 1, at);
  fs.closeSync(descriptor);
}

const pageBytes = 4_096;

const damages: readonly [string, (files: readonly string[]) => void][] = [
  [
    "a flipped byte in every block of a segment",
    ([file = ""]) => {
      for (let at = pageBytes + 100; at < fs.statSync(file).size / 2; at += pageBytes) flip(file, at);
    },
  ],
  [
    "a flipped byte in what describes a segment",
    ([file = ""]) => flip(file, fs.statSync(file).size - 2 * pageBytes - 7),
  ],
  ["a flipped byte in the head of a segment", ([file = ""]) => flip(file, 9)],
  ["a segment that was cut short", ([file = ""]) => fs.truncateSync(file, fs.statSync(file).size >> 1)],
  ["an empty segment", ([file = ""]) => fs.truncateSync(file, 0)],
  ["another segment in its place", ([file = "", other = ""]) => fs.copyFileSync(other, file)],
  ["something else in its place", ([file = ""]) => fs.writeFileSync(file, "GGUF")],
  ["all segments damaged", (files) => files.forEach((file) => flip(file, fs.statSync(file).size - 2 * pageBytes - 7))],
];

describe("a saved context survives", () => {
  it.each(damages)("%s", async (_name, damage) => {
    const { home, root, summary, text, files } = await readOnce();
    damage(files);
    const again = await start(home);
    const client = await again.connect();
    const answer = await client.ask(root, question, { tokensMax: 24 });
    expect(answer.text).toBe(text);
    expect(setAside(home)).toBeGreaterThan(0);
    expect(await client.index(root)).toMatchObject({ complete: true, tokens: summary.tokens });
  });

  it("damage that is found before the question is read", async () => {
    const { home, root, text, files } = await readOnce({ withBeginning: true });
    for (const file of files) {
      for (let at = pageBytes + 100; at < fs.statSync(file).size / 2; at += pageBytes) flip(file, at);
    }
    const client = await (await start(home)).connect();
    expect((await client.ask(root, question, { tokensMax: 24 })).text).toBe(text);
    expect(setAside(home)).toBeGreaterThan(0);
  });

  it("a segment that is cut short while it is open", async () => {
    const { home, root, text, files } = await readOnce();
    const again = await start(home);
    const client = await again.connect();
    await client.request("nosa/index", { root, editorExcludes: {} });
    fs.truncateSync(files[0] ?? "", pageBytes);
    const answer = await client.ask(root, question, { tokensMax: 24 });
    expect(answer.text).toBe(text);
    expect(setAside(home)).toBeGreaterThan(0);
  });

  it("a damaged part of a segment that was being read", async () => {
    const model = path.join(distFolder, "long.gguf");
    // Segments long enough to be stopped in.
    writeTinyGguf(model, { type: "Q8_0", context: 32_768, layers: 4 });
    const root = temporaryFolder();
    writeFiles(root, {
      "long.py": Array.from({ length: 280 }, (_, index) => `value_${index} = ${index * 7919}\n`).join(""),
    });
    const first = await start(undefined, model);
    const client = await first.connect();
    const cancel = new CancellationTokenSource();
    client.on("nosa/indexProgress", ({ tokensDone }) => tokensDone > 2_400 && cancel.cancel());
    const stopped = await client.request("nosa/index", { root, editorExcludes: {} }, cancel.token);
    expect(stopped.complete).toBe(false);
    await first.stop();
    const segments = path.join(dataPaths(first.folder).contexts, "segments");
    const [part = ""] = fs.readdirSync(segments).filter((name) => name.endsWith(".part"));
    const file = path.join(segments, part);
    for (let at = pageBytes + 100; at < fs.statSync(file).size; at += pageBytes) flip(file, at);

    const again = await start(first.folder, model);
    const later = await again.connect();
    const whole = await later.index(root);
    expect(whole).toMatchObject({ complete: true, tokensRead: whole.tokens });
    const calm = await start(undefined, model);
    const other = await calm.connect();
    await other.index(root);
    const answer = await other.ask(root, question, { tokensMax: 24 });
    expect((await later.ask(root, question, { tokensMax: 24 })).text).toBe(answer.text);
  });

  it("segments of another model under their names", async () => {
    const { home, root, text } = await readOnce();
    const other = await start(undefined, "llama-F16.gguf");
    const client = await other.connect();
    await client.index(root);
    await other.stop();
    const from = path.join(dataPaths(other.folder).contexts, "segments");
    const to = path.join(dataPaths(home).contexts, "segments");
    const names = fs.readdirSync(from);
    fs.readdirSync(to).forEach((name, index) =>
      fs.copyFileSync(path.join(from, names[index % names.length] ?? ""), path.join(to, name)),
    );
    const again = await start(home);
    expect((await (await again.connect()).ask(root, question, { tokensMax: 24 })).text).toBe(text);
  });
});
