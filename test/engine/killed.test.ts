/**
 * The engine as it ships, killed again and again while it reads a repository: whatever the moment, the next one goes on
 * from what is on disk, and what is there in the end is what an engine saves that nobody disturbed, to the bit.
 */

import * as fs from "node:fs";
import * as path from "node:path";
import { afterAll, beforeAll, expect, it, onTestFinished } from "vitest";
import { defaultSettings } from "../../engine/config";
import { connectToEngine } from "../../engine/connect";
import { parseRecord, type ContextRecord } from "../../engine/contexts/context";
import { selectionFor, noFocus } from "../../engine/contexts/selection";
import { dataPaths } from "../../engine/paths";
import { protocolVersion } from "../../engine/protocol";
import { isAlive } from "../../engine/util/isAlive";
import { bundleEngine } from "../support/engineBundle";
import { EngineTestClient } from "../support/engineHarness";
import { temporaryFolder, writeFiles } from "../support/folders";
import { random, testSeed } from "../support/random";
import { writeTinyGguf } from "../../scripts/make-tiny-model.mjs";
import { addon, greedy, ids, openOptions } from "../support/tinyModel";

const kills = Number(process.env["NOSA_TEST_KILLS"] ?? 50);

let engineFile: string;
let bundles: string;

beforeAll(async () => {
  bundles = fs.mkdtempSync(path.join(process.env["TMPDIR"] ?? "/tmp", "nosa-killed-"));
  ({ engineFile } = await bundleEngine(bundles));
}, 60_000);

afterAll(() => {
  fs.rmSync(bundles, { recursive: true, force: true });
});

interface Running {
  readonly pid: number;
  readonly client: EngineTestClient;
}

async function start(folder: string, model: string, threads: number): Promise<Running> {
  const env = { ...process.env, NOSA_HOME: folder };
  const { signal } = new AbortController();
  const engine = await connectToEngine({ engineFile, runtime: process.execPath, log: () => undefined, signal, env });
  const client = EngineTestClient.over(engine.socket);
  const settings = { ...defaultSettings, model, threads };
  await client.introduce({ protocolVersion, token: engine.token, client: "test", settings });
  return { pid: engine.pid, client };
}

function kill({ pid, client }: Running): void {
  process.kill(pid, "SIGKILL");
  client.dispose();
}

/** Fails when nothing happens for so long. */
async function within<T>(ms: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`Nothing happened for ${ms / 1000} s`)), ms);
  });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}

async function gone(pid: number): Promise<void> {
  for (const until = Date.now() + 30_000; Date.now() < until; await pause(5)) if (!isAlive(pid)) return;
  throw new Error(`The engine ${pid} did not go.`);
}

function repository(): string {
  const root = temporaryFolder();
  const { between } = random(testSeed());
  const line = (index: number): string => `value_${index} = ${between(0, 1e9)} * ${between(0, 1e9)}\n`;
  const file = (lines: number): string => Array.from({ length: lines }, (_, index) => line(index)).join("");
  // One at the least is long enough to be saved in parts.
  const files = Array.from({ length: 10 }, (_, index) => [
    `src/part${index}.py`,
    file(index === 4 ? 300 : between(3, 300)),
  ]);
  writeFiles(root, Object.fromEntries(files));
  return root;
}

const segmentsOf = (folder: string): string => path.join(dataPaths(folder).contexts, "segments");

/** What is kept of segments that are not whole. */
function partBytes(folder: string): number {
  const parts = fs.readdirSync(segmentsOf(folder)).filter((name) => name.endsWith(".part"));
  const bytesOf = (name: string): number =>
    fs.statSync(path.join(segmentsOf(folder), name), { throwIfNoEntry: false })?.size ?? 0;
  return parts.reduce((sum, name) => sum + bytesOf(name), 0);
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits for a report, or for a part of a segment to be saved; in vain when the run ends before. */
async function reached(moment: () => boolean, ended: () => boolean): Promise<void> {
  for (const until = Date.now() + 60_000; !ended() && !moment(); await pause(2)) {
    if (Date.now() > until) throw new Error("Nothing happened for 60 s");
  }
}

function recordOf(folder: string): ContextRecord {
  const records = path.join(dataPaths(folder).contexts, "records");
  const [name = ""] = fs.readdirSync(records);
  const record = parseRecord(JSON.parse(fs.readFileSync(path.join(records, name), "utf8")));
  if (record === undefined) throw new Error("There is no record.");
  return record;
}

/** Ids and log-probabilities of an answer behind everything that was saved. */
async function answer(folder: string, model: string, threads: number) {
  const record = recordOf(folder);
  const native = await addon().openModel(openOptions(model, { threads }));
  const load = async (
    key: string,
    basePosition: number,
    attends: readonly Awaited<ReturnType<typeof native.createSequence>>[],
  ) => {
    const sequence = await native.createSequence({ basePosition, attends });
    await sequence.load({ path: path.join(segmentsOf(folder), `${key}.kv`), key });
    return sequence;
  };
  const header = await load(record.header.key, 0, []);
  const segments = [];
  for (const { key } of record.segments) segments.push(await load(key, record.header.tokens, [header]));
  const basePosition = record.header.tokens + record.segmentPositions;
  const tail = await native.createSequence({ basePosition, attends: [header, ...segments] });
  await tail.select(selectionFor(record.segments, noFocus));
  await tail.setTokens(ids(90));
  const { steps, attendedBlocks, totalBlocks } = await tail.decode(greedy(24, { top: 8 }));
  await native.dispose();
  expect(attendedBlocks).toBeLessThan(totalBlocks);
  return steps.map(({ token, top }) => ({ token, top }));
}

it(
  `is killed ${kills} times while it reads, goes on each time, and saves what an undisturbed engine saves`,
  { timeout: 600_000 },
  async () => {
    const { between } = random(testSeed());
    // Segments as long as the default model's, and slow enough to be killed in.
    const model = path.join(bundles, "tiny.gguf");
    writeTinyGguf(model, { type: "Q8_0", context: 32_768, layers: 4 });
    const root = repository();
    const [killed, calm] = [temporaryFolder(), temporaryFolder()];
    const pids = new Set<number>();
    onTestFinished(() => {
      for (const pid of pids) {
        try {
          process.kill(pid, "SIGKILL");
        } catch {
          // It is gone already.
        }
      }
    });

    let resumed = 0;
    let inTheMiddle = 0;
    for (let round = 0; round < kills; round++) {
      const engine = await start(killed, model, between(1, 2));
      pids.add(engine.pid);
      // What is all there is read anew, so that there is something to be killed in.
      const whole = (await engine.client.request("nosa/status", {})).contexts.some(({ complete }) => complete);
      let reports = 0;
      let ended = false;
      engine.client.on("nosa/indexProgress", () => (reports += 1));
      const saved = partBytes(killed);
      engine.client.request("nosa/index", { root, editorExcludes: {}, reread: whole ? ["/"] : [] }).then(
        () => (ended = true),
        () => (ended = true),
      );
      // By turns when it has just saved a part of a segment, and a while after some report of whatever it does.
      const reportsMin = between(1, 12);
      if (round % 2 === 0) {
        const savedMore = (): boolean => partBytes(killed) > 0 && partBytes(killed) !== saved;
        // Frozen, it cannot finish the segment before it is killed.
        const frozen = (): boolean => {
          if (!savedMore()) return false;
          process.kill(engine.pid, "SIGSTOP");
          if (savedMore()) return true;
          process.kill(engine.pid, "SIGCONT");
          return false;
        };
        await reached(frozen, () => ended);
      } else {
        await reached(
          () => reports >= reportsMin,
          () => ended,
        );
        await pause(between(0, 60));
      }
      kill(engine);
      await gone(engine.pid);
      if (partBytes(killed) > 0) inTheMiddle += 1;
      if (!whole) resumed += 1;
    }
    console.log(`${kills} kills, ${resumed} of them in a run that went on, ${inTheMiddle} left a part of a segment`);
    expect(resumed).toBeGreaterThan(kills / 4);
    expect(inTheMiddle).toBeGreaterThan(kills / 8);

    for (const [folder, threads] of [
      [killed, 2],
      [calm, 1],
    ] as const) {
      const engine = await start(folder, model, threads);
      pids.add(engine.pid);
      expect(await within(120_000, engine.client.index(root))).toMatchObject({ complete: true });
      // Drained, not killed: this one is to end well.
      await engine.client.request("nosa/drain", {});
      await gone(engine.pid);
    }
    const keys = recordOf(calm).segments.map(({ key }) => key);
    expect(recordOf(killed).segments.map(({ key }) => key)).toEqual(keys);
    for (const key of [recordOf(calm).header.key, ...keys]) {
      const [one, two] = [killed, calm].map((folder) => fs.readFileSync(path.join(segmentsOf(folder), `${key}.kv`)));
      expect(one?.equals(two ?? Buffer.alloc(0)), key).toBe(true);
    }
    const expected = await answer(calm, model, 1);
    for (const threads of [1, 2]) expect(await answer(killed, model, threads)).toEqual(expected);
  },
);
