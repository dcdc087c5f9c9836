/** What every NativeModel promises, held against the real one and against the fake that engine tests use. */

import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import * as path from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { NativeModel, NativeSequence } from "../../engine/native/addon";
import { CopyModel } from "../support/copyModel";
import { addon, codeOf, greedy, ids, openOptions, tinyModels } from "../support/tinyModel";

const tiny = tinyModels();
const scratch = mkdtempSync(path.join(tmpdir(), "nosa-contract-"));

afterAll(() => {
  tiny.remove();
  rmSync(scratch, { recursive: true, force: true });
});

const models = [
  { name: "real", open: () => addon().openModel(openOptions(path.join(tiny.folder, "qwen2-F32.gguf"))) },
  { name: "fake", open: async () => new CopyModel() },
];

describe.each(models)("the $name model", ({ name, open }) => {
  let model: NativeModel;
  let sequence: NativeSequence;

  beforeAll(async () => {
    model = await open();
  });
  afterAll(() => model.dispose());
  beforeEach(async () => {
    sequence = await model.createSequence({ basePosition: 0, attends: [] });
  });

  it("keeps the longest common prefix", async () => {
    const tokens = ids(150).map((id) => id % 200);
    expect(await sequence.setTokens(tokens)).toEqual({ kept: 0 });
    expect(await sequence.prefill({ tokensMax: 100 })).toMatchObject({
      computed: 100,
      done: false,
      interrupted: false,
    });
    expect(await sequence.setTokens(tokens)).toEqual({ kept: 100 });
    expect(await sequence.setTokens(tokens.slice(0, 40))).toEqual({ kept: 40 });
    expect(await sequence.prefill({ tokensMax: 1 })).toMatchObject({ computed: 40, done: true, interrupted: false });
  });

  it("says what it holds, computed or not, and what a fork and a loaded copy hold", async () => {
    expect(await sequence.tokens()).toEqual(new Uint32Array());
    const tokens = ids(150).map((id) => id % 200);
    await sequence.setTokens(tokens);
    expect(await sequence.tokens()).toEqual(tokens);
    await sequence.prefill({ tokensMax: 1000 });
    const file = path.join(scratch, `${name}-tokens.kv`);
    await sequence.save({ path: file, key: "tokens" });
    const loaded = await model.createSequence({ basePosition: 0, attends: [] });
    await loaded.load({ path: file, key: "tokens" });
    const fork = await loaded.fork();
    await fork.setTokens(tokens.slice(0, 70));
    expect(await loaded.tokens()).toEqual(tokens);
    expect(await fork.tokens()).toEqual(tokens.slice(0, 70));
    await fork.dispose();
    await loaded.dispose();
  });

  it("computes what waits before it decodes, and ends at a stop id that it does not keep", async () => {
    const tokens = ids(30).map((id) => id % 200);
    await sequence.setTokens(tokens);
    const free = await sequence.decode(greedy(1));
    expect(free.steps).toHaveLength(1);
    await sequence.setTokens(tokens);
    const stopped = await sequence.decode(greedy(9, { stopIds: free.steps.map((step) => step.token) }));
    expect(stopped).toMatchObject({ stopped: true, interrupted: false });
    expect(stopped.steps).toHaveLength(1);
    expect(await sequence.setTokens(tokens)).toEqual({ kept: 30 });
  });

  it("decodes several sequences in one command as it decodes each, and lets one fail alone", async () => {
    const tokens = ids(30).map((id) => id % 200);
    await sequence.setTokens(tokens);
    const other = await sequence.fork();
    await other.setTokens(tokens.slice(0, 20));
    const expected = [];
    for (const each of [sequence, other]) {
      const copy = await each.fork();
      expected.push((await copy.decode(greedy(4))).steps.map(({ token }) => token));
      await copy.dispose();
    }
    const empty = await model.createSequence({ basePosition: 0, attends: [] });
    const tasks = [
      { sequence, options: greedy(4) },
      ...(name === "real" ? [{ sequence: empty, options: greedy(4) }] : []),
      { sequence: other, options: greedy(4) },
    ];
    const results = await model.decodeTogether({ tasks });
    const found = results.flatMap((each) => (each.kind === "decoded" ? [each.result] : []));
    expect(found.map(({ steps }) => steps.map(({ token }) => token))).toEqual(expected);
    expect(found.every(({ interrupted, shared }) => !interrupted && shared === 0)).toBe(true);
    const failures = results.flatMap((each) => (each.kind === "failed" ? [codeOf(Promise.reject(each.error))] : []));
    expect(await Promise.all(failures)).toEqual(name === "real" ? ["invalidArgument"] : []);
    expect(await model.decodeTogether({ tasks: [] })).toEqual([]);
    expect(model.info.stepSequences).toBe(1);
    await other.dispose();
    await empty.dispose();
  });

  it("lets an attended sequence grow no more, and counts its blocks", async () => {
    const tokens = ids(130).map((id) => id % 200);
    await sequence.setTokens(tokens);
    await sequence.prefill({ tokensMax: 1000 });
    const tail = await model.createSequence({ basePosition: 130, attends: [sequence] });
    expect(await codeOf(sequence.setTokens(ids(5)))).toBe("invalidArgument");
    await tail.setTokens(tokens.slice(0, 3));
    const result = await tail.decode(greedy(3, { masses: true }));
    expect(result.totalBlocks).toBeGreaterThanOrEqual(3);
    expect(result.masses.every(({ sequence: index, block }) => index === 0 && block >= 0 && block < 3)).toBe(true);
    await tail.dispose();
  });

  it("forks into copies that grow apart", async () => {
    await sequence.setTokens(ids(70).map((id) => id % 200));
    await sequence.prefill({ tokensMax: 1000 });
    const fork = await sequence.fork();
    await fork.setTokens(ids(10).map((id) => id % 200));
    expect(await sequence.setTokens(ids(70).map((id) => id % 200))).toEqual({ kept: 70 });
    await fork.dispose();
  });

  it("saves and loads under a key", async () => {
    const file = path.join(scratch, `${name}-saved`);
    const tokens = ids(90).map((id) => id % 200);
    await sequence.setTokens(tokens);
    await sequence.prefill({ tokensMax: 1000 });
    const { bytes } = await sequence.save({ path: file, key: "key" });
    expect(statSync(file).size).toBe(bytes);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    const loaded = await model.createSequence({ basePosition: 0, attends: [] });
    expect(await codeOf(loaded.load({ path: file, key: "other" }))).toBe("invalidArgument");
    expect(await loaded.load({ path: file, key: "key" })).toEqual({ tokens: 90 });
    expect(await loaded.setTokens(tokens)).toEqual({ kept: 90 });
    writeFileSync(file, "nothing of the kind");
    const empty = await model.createSequence({ basePosition: 0, attends: [] });
    expect(await codeOf(empty.load({ path: file, key: "key" }))).toBe("corrupt");
    expect(existsSync(file)).toBe(true);
  });

  it("may be disposed twice, sequences too", async () => {
    await sequence.dispose();
    await sequence.dispose();
    const other = await open();
    await other.dispose();
    await other.dispose();
    expect(await codeOf(other.memory())).toBe("disposed");
  });
});
