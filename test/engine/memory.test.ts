/** The engine as it ships, under a small memory budget: what the process takes while it reads and answers, against its plan. */

import * as fs from "node:fs";
import * as path from "node:path";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { writeTinyGguf } from "../../scripts/make-tiny-model.mjs";
import { defaultSettings } from "../../engine/config";
import { connectToEngine } from "../../engine/connect";
import { protocolVersion, type EngineStatus } from "../../engine/protocol";
import { bundleEngine } from "../support/engineBundle";
import { EngineTestClient } from "../support/engineHarness";
import { temporaryFolder, writeFiles } from "../support/folders";
import { random, testSeed } from "../support/random";

let bundles: string;
let engineFile: string;
let model: string;

beforeAll(async () => {
  bundles = fs.mkdtempSync(path.join(process.env["TMPDIR"] ?? "/tmp", "nosa-memory-"));
  ({ engineFile } = await bundleEngine(bundles));
  // KV of the default model's size, and little else to compute.
  model = path.join(bundles, "tiny.gguf");
  writeTinyGguf(model, { type: "Q8_0", context: 32_768, layers: 24 });
}, 60_000);

afterAll(() => {
  fs.rmSync(bundles, { recursive: true, force: true });
});

interface Running {
  readonly pid: number;
  readonly client: EngineTestClient;
}

async function start(folder: string, memoryGigabytes: number): Promise<Running> {
  const env = { ...process.env, NOSA_HOME: folder };
  const { signal } = new AbortController();
  const engine = await connectToEngine({ engineFile, runtime: process.execPath, log: () => undefined, signal, env });
  const client = EngineTestClient.over(engine.socket);
  const settings = { ...defaultSettings, model, threads: 2, memoryGigabytes, diskGigabytes: 5 };
  await client.introduce({ protocolVersion, token: engine.token, client: "test", settings });
  const running = { pid: engine.pid, client };
  onTestFinished(() => stop(running));
  return running;
}

/** Ends with the process gone; one that is gone already is fine. */
async function stop({ pid, client }: Running): Promise<void> {
  if (fs.existsSync(`/proc/${pid}`)) await client.request("nosa/drain", {}).catch(() => undefined);
  client.dispose();
  await expect.poll(() => fs.existsSync(`/proc/${pid}`)).toBe(false);
}

/** One letter is one token. */
function repository(letters: number): string {
  const root = temporaryFolder();
  const { between } = random(testSeed());
  const line = (index: number): string => `value_${index} = ${between(0, 1e9)}\n`;
  const file = (): string => Array.from({ length: 150 }, (_, index) => line(index)).join("");
  const files: Record<string, string> = {};
  for (let taken = 0, index = 0; taken < letters; index++) {
    const text = file();
    files[`src/part${index}.py`] = text;
    taken += text.length;
  }
  writeFiles(root, files);
  return root;
}

/** Neither files that are mapped nor the page cache. */
function anonymousBytes(pid: number): number {
  const status = fs.readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/^RssAnon:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
}

async function mostWhile<T>(
  pid: number,
  work: () => Promise<T>,
): Promise<{ readonly most: number; readonly result: T }> {
  let most = 0;
  const look = (): void => {
    most = Math.max(most, anonymousBytes(pid));
  };
  const timer = setInterval(look, 20);
  try {
    const result = await work();
    look();
    return { most, result };
  } finally {
    clearInterval(timer);
  }
}

const questions = ["value_7 = ", "Where is value_140?", "What is in part2?"];

/** What was answered, the most that the process took from its start on, and its last status. */
async function readAndAsk({ pid, client }: Running, root: string) {
  const { most, result } = await mostWhile(pid, async () => {
    const { complete, tokens } = await client.index(root);
    expect(complete).toBe(true);
    const answers = [];
    for (const question of questions) answers.push((await client.ask(root, question, { tokensMax: 16 })).text);
    return { answers, tokens };
  });
  let status: EngineStatus;
  do {
    await new Promise((resolve) => setTimeout(resolve, 20));
    status = await client.request("nosa/status", {});
  } while (status.memory.bytes === 0 || status.memory.diskBytesRead === 0);
  return { ...result, most, memory: status.memory };
}

describe.runIf(process.platform === "linux")("memory", () => {
  it("stays within a tenth of the plan with a context of many times the budget, and answers the same", async () => {
    const root = repository(29_000);
    const folder = temporaryFolder();
    const first = await start(folder, 0.11);
    const little = await readAndAsk(first, root);
    await stop(first);
    const { memory, most, tokens } = little;
    expect(memory.note).toBe("");
    expect(memory.bytesMax).toBe(110e6);
    const planned = memory.bytesMax + (memory.engineBytes ?? 0);
    const kvBytes = tokens * 24 * 2 * 2 * 64 * 2;
    console.log(
      `${tokens} tokens, ${Math.round(kvBytes / 1e6)} MB of KV; planned ${Math.round(planned / 1e6)} MB, most taken ` +
        `${Math.round(most / 1e6)} MB; ${Math.round(memory.diskBytesRead / 1e6)} MB read. ${memory.plan}`,
    );
    expect(kvBytes).toBeGreaterThan(3 * memory.bytesMax);
    expect(memory.bytes).toBeLessThanOrEqual(memory.bytesMax);
    expect(most).toBeLessThan(1.1 * planned);
    // It is a plan, not a bound that anything keeps to.
    expect(most).toBeGreaterThan(0.7 * planned);

    const plenty = await readAndAsk(await start(folder, 4), root);
    expect(little.answers).toEqual(plenty.answers);
    expect(plenty.most).toBeLessThan(1.1 * ((plenty.memory.engineBytes ?? 0) + plenty.memory.bytesMax));
  });

  it("is never less than one step attends to, which is said", async () => {
    const { client } = await start(temporaryFolder(), 0.05);
    await client.ask("", "value_1 = ", { tokensMax: 4 });
    const { memory } = await client.request("nosa/status", {});
    expect(memory.bytesMax).toBeGreaterThan(64 * 48 * 16_384);
    expect(memory.note).toContain("nosa.memoryGigabytes of 0.05 GB");
    expect(memory.plan).toMatch(/^Plan: 0\.11 GB of memory/);
  });
});
