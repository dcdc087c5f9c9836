/**
 * The addon from JavaScript: which call is allowed in which state, what is refused and how, what it gives back, and
 * that nothing is left behind.
 */

import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import * as path from "node:path";
import { Worker } from "node:worker_threads";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type {
  DecodeOptions,
  NativeAddon,
  NativeModel,
  NativeSequence,
  OpenModelOptions,
} from "../../engine/native/addon";
import { loadAddon } from "../../engine/native/load";
import { modelFile } from "../support/models";

const addonFile = path.resolve("dist/nosa.node");
const greedy = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };
const decode: DecodeOptions = { steps: 4, sampling: greedy, stopIds: [] };
const tokens = Uint32Array.from({ length: 300 }, (_, i) => 100 + ((i * 7919) % 40_000));

let addon: NativeAddon;
let file: string;
let folder: string;
const open = (options: Partial<OpenModelOptions> = {}): Promise<NativeModel> =>
  addon.openModel({ path: file, threads: 2, precision: "fast", kernels: "auto", ...options });

beforeAll(async () => {
  addon = loadAddon(addonFile);
  file = await modelFile("smollm2-135m-instruct");
  folder = mkdtempSync(path.join(tmpdir(), "nosa-addon-"));
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

async function sequenceOf(
  model: NativeModel,
  ids: Uint32Array,
  attends: readonly NativeSequence[] = [],
): Promise<NativeSequence> {
  const sequence = await model.createSequence({ basePosition: attends.length === 0 ? 0 : 512, attends });
  await sequence.setTokens(ids);
  await sequence.prefill({ tokensMax: ids.length });
  return sequence;
}

type SequenceCall = (sequence: NativeSequence) => Promise<unknown>;

/** Every method of a sequence, as the matrix walks it. */
const calls: Readonly<Record<string, SequenceCall>> = {
  setTokens: (sequence) => sequence.setTokens(tokens.slice(0, 40)),
  prefill: (sequence) => sequence.prefill({ tokensMax: 1000 }),
  decode: (sequence) => sequence.decode(decode),
  score: (sequence) => sequence.score({ from: 1 }),
  fork: async (sequence) => (await sequence.fork()).dispose(),
  save: (sequence) => sequence.save({ path: path.join(folder, "state.kv"), key: "key" }),
  load: (sequence) => sequence.load({ path: path.join(folder, "saved.kv"), key: "key" }),
};

interface State {
  readonly make: (model: NativeModel) => Promise<NativeSequence>;
  /** Method → the code it is refused with; the others are allowed. */
  readonly refused: Readonly<Record<string, string>>;
}

const states: Readonly<Record<string, State>> = {
  empty: {
    make: (model) => model.createSequence({ basePosition: 0, attends: [] }),
    refused: { decode: "invalidArgument", score: "invalidArgument" },
  },
  waiting: {
    make: async (model) => {
      const sequence = await model.createSequence({ basePosition: 0, attends: [] });
      await sequence.setTokens(tokens.slice(0, 40));
      return sequence;
    },
    refused: { load: "invalidArgument" },
  },
  computed: {
    make: (model) => sequenceOf(model, tokens.slice(0, 40)),
    refused: { load: "invalidArgument" },
  },
  "sealed by another that attends it": {
    make: async (model) => {
      const sequence = await sequenceOf(model, tokens.slice(0, 40));
      await model.createSequence({ basePosition: 40, attends: [sequence] });
      return sequence;
    },
    refused: { setTokens: "invalidArgument", decode: "invalidArgument", load: "invalidArgument" },
  },
  disposed: {
    make: async (model) => {
      const sequence = await sequenceOf(model, tokens.slice(0, 40));
      await sequence.dispose();
      return sequence;
    },
    refused: Object.fromEntries(Object.keys(calls).map((name) => [name, "disposed"])),
  },
};

describe("which call is allowed in which state", () => {
  let model: NativeModel;
  beforeAll(async () => {
    model = await open();
    const saved = await sequenceOf(model, tokens.slice(0, 100));
    await saved.save({ path: path.join(folder, "saved.kv"), key: "key" });
    await saved.dispose();
  });
  afterAll(() => model.dispose());

  for (const [state, { make, refused }] of Object.entries(states)) {
    for (const [name, call] of Object.entries(calls)) {
      const code = refused[name];
      it(`${state}: ${name} is ${code === undefined ? "allowed" : `refused with ${code}`}`, async () => {
        const sequence = await make(model);
        if (code === undefined) await expect(call(sequence)).resolves.not.toThrow();
        else await expect(call(sequence)).rejects.toMatchObject({ code });
        await sequence.dispose();
        await sequence.dispose();
      });
    }
  }

  it("refuses everything of a model that is disposed, but disposing it again", async () => {
    const other = await open();
    const sequence = await sequenceOf(other, tokens.slice(0, 10));
    await other.dispose();
    await other.dispose();
    other.interrupt();
    await expect(other.createSequence({ basePosition: 0, attends: [] })).rejects.toMatchObject({ code: "disposed" });
    await expect(other.memory()).rejects.toMatchObject({ code: "disposed" });
    for (const call of Object.values(calls)) await expect(call(sequence)).rejects.toMatchObject({ code: "disposed" });
    await sequence.dispose();
  });

  it("refuses a sequence of another model", async () => {
    const other = await open();
    const foreign = await sequenceOf(other, tokens.slice(0, 10));
    await expect(model.createSequence({ basePosition: 10, attends: [foreign] })).rejects.toMatchObject({
      code: "invalidArgument",
    });
    await other.dispose();
  });

  it("refuses ids outside the vocabulary and goes on", async () => {
    const sequence = await sequenceOf(model, tokens.slice(0, 10));
    await expect(sequence.setTokens(Uint32Array.of(1, 4_000_000))).rejects.toMatchObject({ code: "invalidArgument" });
    expect((await sequence.decode(decode)).steps).toHaveLength(4);
    await sequence.dispose();
  });
});

describe("results", () => {
  let model: NativeModel;
  beforeAll(async () => {
    model = await open();
  });
  afterAll(() => model.dispose());

  it("are the same from a fork, from a saved file and with one thread", async () => {
    const header = await sequenceOf(model, tokens.slice(0, 20));
    const segment = await sequenceOf(model, tokens.slice(20, 220), [header]);
    const saved = path.join(folder, "segment.kv");
    await segment.save({ path: saved, key: "k" });
    const loaded = await model.createSequence({ basePosition: 512, attends: [header] });
    expect(await loaded.load({ path: saved, key: "k" })).toEqual({ tokens: 200 });
    const answer = async (other: NativeSequence): Promise<unknown> => {
      const tail = await model.createSequence({ basePosition: 1024, attends: [header, other] });
      await tail.setTokens(tokens.slice(220, 250));
      await tail.prefill({ tokensMax: 30 });
      const fork = await tail.fork();
      const steps = (await tail.decode({ ...decode, top: 5 })).steps;
      expect((await fork.decode({ ...decode, top: 5 })).steps).toEqual(steps);
      return steps;
    };
    expect(await answer(loaded)).toEqual(await answer(segment));

    const alone = await open({ threads: 1 });
    const one = await sequenceOf(alone, tokens.slice(0, 150));
    const two = await sequenceOf(model, tokens.slice(0, 150));
    expect((await one.decode({ ...decode, top: 5 })).steps).toEqual((await two.decode({ ...decode, top: 5 })).steps);
    await alone.dispose();
  });

  it("are the same when the prefill was interrupted over and over, and nothing is redone", async () => {
    const whole = await sequenceOf(model, tokens);
    const expected = (await whole.decode({ ...decode, top: 5 })).steps;
    const sequence = await model.createSequence({ basePosition: 0, attends: [] });
    await sequence.setTokens(tokens);
    let interruptions = 0;
    let computed = 0;
    for (let tries = 0; tries < 2000; tries += 1) {
      const running = sequence.prefill({ tokensMax: tokens.length });
      const timer = setTimeout(() => model.interrupt(), 3);
      const result = await running;
      clearTimeout(timer);
      expect(result.computed).toBeGreaterThanOrEqual(computed);
      computed = result.computed;
      interruptions += result.interrupted ? 1 : 0;
      if (result.done) break;
    }
    expect(computed).toBe(tokens.length);
    expect(interruptions).toBeGreaterThan(2);
    expect((await sequence.decode({ ...decode, top: 5 })).steps).toEqual(expected);
  });

  it("a saved file of another key, a cut one and a changed one are refused", async () => {
    const sequence = await sequenceOf(model, tokens.slice(0, 100));
    const saved = path.join(folder, "broken.kv");
    const load = async (key: string): Promise<unknown> =>
      (await model.createSequence({ basePosition: 0, attends: [] })).load({ path: saved, key });
    await sequence.save({ path: saved, key: "k" });
    expect(statSync(saved).mode & 0o077).toBe(0);
    await expect(load("other")).rejects.toMatchObject({ code: "invalidArgument" });
    truncateSync(saved, statSync(saved).size - 4096);
    await expect(load("k")).rejects.toMatchObject({ code: "corrupt" });
    await expect(
      (await model.createSequence({ basePosition: 0, attends: [] })).load({ path: `${saved}.none`, key: "k" }),
    ).rejects.toMatchObject({ code: "notFound" });
  });
});

describe("models that cannot be opened", () => {
  const refused = async (content: Buffer | string, code: string): Promise<void> => {
    const broken = path.join(folder, "broken.gguf");
    writeFileSync(broken, content);
    await expect(open({ path: broken })).rejects.toMatchObject({ code });
  };
  it("each get a code and a sentence", async () => {
    await expect(open({ path: path.join(folder, "none.gguf") })).rejects.toMatchObject({ code: "notFound" });
    await refused("", "corrupt");
    await refused("this is not a model at all, but long enough to have a head", "corrupt");
    await refused(Buffer.concat([Buffer.from("GGUF"), Buffer.alloc(200, 0xff)]), "unsupported");
    await expect(open({ path: folder })).rejects.toMatchObject({
      message: expect.stringMatching(/config\.json/) as string,
    });
  });
});

describe("life", () => {
  it("a dispose during work waits for it and the work ends well", async () => {
    const model = await open();
    const sequence = await model.createSequence({ basePosition: 0, attends: [] });
    const set = sequence.setTokens(tokens);
    const work = sequence.prefill({ tokensMax: tokens.length });
    const gone = model.dispose();
    await set;
    expect((await work).done).toBe(true);
    await gone;
  });

  it("an interrupt makes the running command return within 100 ms", async () => {
    const model = await open();
    const sequence = await model.createSequence({ basePosition: 0, attends: [] });
    await sequence.setTokens(Uint32Array.from({ length: 4000 }, (_, i) => 50 + (i % 30_000)));
    const waits: number[] = [];
    for (let round = 0; round < 10; round += 1) {
      const running = sequence.prefill({ tokensMax: 4000 });
      await new Promise((resolve) => setTimeout(resolve, 15));
      const start = performance.now();
      model.interrupt();
      const { done } = await running;
      if (!done) waits.push(performance.now() - start);
    }
    waits.sort((a, b) => a - b);
    expect(waits.length).toBeGreaterThan(3);
    expect(waits[Math.floor(waits.length / 2)]).toBeLessThan(100);
    await model.dispose();
  });

  it("two models and a second environment work side by side", async () => {
    const [a, b] = await Promise.all([open(), open({ precision: "f32" })]);
    const answers = await Promise.all(
      [a, b].map(async (model) => (await (await sequenceOf(model, tokens.slice(0, 30))).decode(decode)).steps.length),
    );
    expect(answers).toEqual([4, 4]);
    const worker = new Worker(
      `const { workerData, parentPort } = require("node:worker_threads");
       const addon = require(workerData.addonFile);
       addon.openModel({ path: workerData.file, threads: 1, precision: "fast", kernels: "auto" }).then(async (model) => {
         parentPort.postMessage(model.info.layers);
         await model.dispose();
       });`,
      { eval: true, workerData: { addonFile, file } },
    );
    const layers = await new Promise((resolve, reject) => {
      worker.once("message", resolve);
      worker.once("error", reject);
    });
    expect(layers).toBe(a.info.layers);
    await worker.terminate();
    await Promise.all([a.dispose(), b.dispose()]);
  });

  it("opening and disposing again and again takes no more memory", () => {
    // In a process of its own, so that what other tests hold does not count.
    const script = `
      const addon = require(${JSON.stringify(addonFile)});
      const round = async () => {
        const model = await addon.openModel({ path: ${JSON.stringify(file)}, threads: 2, precision: "fast", kernels: "auto" });
        for (let i = 0; i < 3; i += 1) {
          const sequence = await model.createSequence({ basePosition: 0, attends: [] });
          await sequence.setTokens(Uint32Array.from({ length: 200 }, (_, j) => j + 5));
          await sequence.prefill({ tokensMax: 200 });
          if (i > 0) await sequence.dispose();
        }
        await model.dispose();
      };
      const anonymous = () => Number(/RssAnon:\\s+(\\d+)/.exec(require("node:fs").readFileSync("/proc/self/status", "utf8"))[1]) / 1024;
      (async () => {
        for (let i = 0; i < 4; i += 1) await round();
        global.gc();
        const before = anonymous();
        for (let i = 0; i < 12; i += 1) await round();
        global.gc();
        console.log(anonymous() - before);
      })();`;
    const grown = Number(execFileSync(process.execPath, ["--expose-gc", "-e", script], { encoding: "utf8" }));
    expect(grown).toBeLessThan(24);
  });

  it("reads a vocabulary quickly", () => {
    const start = performance.now();
    const { scalars, arrays } = addon.ggufMetadata(file);
    expect(scalars["general.architecture"]).toBe("llama");
    expect(arrays["tokenizer.ggml.tokens"]).toHaveLength(49_152);
    expect(performance.now() - start).toBeLessThan(2000);
  });
});
