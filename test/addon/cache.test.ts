/** The cache over the seam: which blocks are chosen, what memory is taken, what comes from disk; and that neither changes an answer. */

import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import * as path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeTinyGguf } from "../../scripts/make-tiny-model.mjs";
import type { NativeModel, NativeSequence, OpenModelOptions, SelectionOptions } from "../../engine/native/addon";
import { addon, codeOf, greedy, ids, openOptions } from "../support/tinyModel";

const layers = 4;
const kvHeads = 2;
const extentBytes = 2 * 64 * 64 * 2;
/** Memory for blocks comes in so many. */
const slabBytes = 64 * extentBytes;
const segments = 5;
const segmentTokens = 640;
const headerTokens = 64;

let folder: string;
let file: string;

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), "nosa-cache-"));
  file = path.join(folder, "tiny.gguf");
  writeTinyGguf(file, { type: "Q8_0", context: 8_192, layers });
  const model = await open();
  const { header, all } = await computed(model);
  for (const [index, sequence] of [header, ...all].entries()) await sequence.save({ path: kept(index), key: "key" });
  await model.dispose();
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const kept = (index: number): string => path.join(folder, `${index}.kv`);
const open = (more: Partial<OpenModelOptions> = {}): Promise<NativeModel> => addon().openModel(openOptions(file, more));

const few: SelectionOptions = {
  policy: "nosa",
  totalBlocks: 12,
  queryBlocks: 5,
  sinkBlocks: 1,
  windowBlocks: 3,
  masked: [],
  pinned: [],
};

async function computed(model: NativeModel) {
  const header = await model.createSequence({ basePosition: 0, attends: [] });
  await header.setTokens(ids(headerTokens));
  await header.prefill({ tokensMax: headerTokens });
  const all: NativeSequence[] = [];
  for (let index = 1; index <= segments; index++) {
    const sequence = await model.createSequence({ basePosition: headerTokens, attends: [header] });
    await sequence.setTokens(ids(segmentTokens, index));
    await sequence.prefill({ tokensMax: segmentTokens });
    all.push(sequence);
  }
  return { header, all };
}

async function loaded(model: NativeModel) {
  const load = async (index: number, attends: readonly NativeSequence[]): Promise<NativeSequence> => {
    const sequence = await model.createSequence({ basePosition: index === 0 ? 0 : headerTokens, attends });
    await sequence.load({ path: kept(index), key: "key" });
    return sequence;
  };
  const header = await load(0, []);
  const all = [];
  for (let index = 1; index <= segments; index++) all.push(await load(index, [header]));
  return { header, all };
}

async function tailOf(
  model: NativeModel,
  { header, all }: { readonly header: NativeSequence; readonly all: readonly NativeSequence[] },
  options?: SelectionOptions,
): Promise<NativeSequence> {
  const attends = [header, ...all];
  const tail = await model.createSequence({ basePosition: headerTokens + segmentTokens, attends });
  if (options !== undefined) await tail.select(options);
  await tail.setTokens(ids(100, 77));
  return tail;
}

const asked = greedy(12, { top: 6 });

describe("select", () => {
  let model: NativeModel;
  let context: Awaited<ReturnType<typeof computed>>;
  beforeAll(async () => {
    model = await open();
    context = await computed(model);
  });
  afterAll(() => model.dispose());

  /** Lists of blocks that the last query chose. */
  const chosen = async (options?: SelectionOptions): Promise<readonly (readonly number[])[]> => {
    const { steps, attendedBlocks, totalBlocks } = await (
      await tailOf(model, context, options)
    ).decode({ ...greedy(1), selections: true });
    expect(totalBlocks).toBe(1 + segments * 10 + 2);
    const lists = steps[0]?.selections ?? [];
    expect(lists).toHaveLength(layers * kvHeads);
    const sizes = lists.map((list) => (list.length === 0 ? totalBlocks : list.length));
    expect(attendedBlocks).toBe(Math.round(sizes.reduce((sum, size) => sum + size, 0) / sizes.length));
    return lists;
  };

  it("attends to everything until it is told otherwise, and with room for everything", async () => {
    expect((await chosen()).every((list) => list.length === 0)).toBe(true);
    const room = { ...few, totalBlocks: 53 };
    expect((await chosen(room)).every((list) => list.length === 0 || list.length === 53)).toBe(true);
    const answer = async (options?: SelectionOptions) =>
      (await (await tailOf(model, context, options)).decode(asked)).steps;
    expect(await answer(room)).toEqual(await answer());
    expect(await answer({ ...few, policy: "full" })).toEqual(await answer());
  });

  it("takes sink, window and what is pinned, nothing that is masked, and as many as it may", async () => {
    const pinned = [{ sequence: 2, from: 3, to: 5 }];
    const masked = [{ sequence: 4, from: 0, to: 10 }];
    for (const policy of ["nosa", "infllmv2"] as const) {
      for (const list of await chosen({ ...few, policy, pinned, masked })) {
        expect(list).toHaveLength(few.totalBlocks);
        expect(list.toSorted((a, b) => a - b)).toEqual(list);
        for (const block of [0, 1 + 10 + 3, 1 + 10 + 4, 51, 52]) expect(list).toContain(block);
        expect(list.filter((block) => block >= 31 && block < 41)).toEqual([]);
      }
    }
    // A pin does not bring back what is masked.
    const both = { sequence: 1, from: 0, to: 1 };
    for (const list of await chosen({ ...few, pinned: [both], masked: [both] })) expect(list).not.toContain(1);
  });

  it("refuses what cannot be, and keeps what it was told before", async () => {
    const tail = await tailOf(model, context, few);
    const refused = [
      { ...few, windowBlocks: 0 },
      { ...few, totalBlocks: 7 },
      { ...few, masked: [{ sequence: 6, from: 0, to: 1 }] },
      { ...few, masked: [{ sequence: 1, from: 0, to: 11 }] },
      { ...few, pinned: [{ sequence: 1, from: 5, to: 4 }] },
      { ...few, pinned: [{ sequence: 1, from: 0, to: 5 }] },
    ];
    for (const options of refused) expect(await codeOf(tail.select(options))).toBe("invalidArgument");
    const expected = (await (await tailOf(model, context, few)).decode(asked)).steps;
    expect((await tail.decode(asked)).steps).toEqual(expected);
  });
});

describe("a limit of memory", () => {
  const spill = (): Partial<OpenModelOptions> => ({ spillFolder: folder });

  it("changes no bit, is kept to, and is made up for by disk", async () => {
    const free = await open();
    const freely = await tailOf(free, await computed(free), few);
    const expected = (await freely.decode(asked)).steps;
    expect(await free.memory()).toMatchObject({ memoryBytesMax: 0, blocksRead: 0, diskBytesRead: 0 });
    await free.dispose();

    for (const ahead of [false, true]) {
      const model = await open(spill());
      await model.limitMemory({ kvBytesMax: 2 * slabBytes });
      const tail = await tailOf(model, await loaded(model), few);
      if (ahead) expect(await tail.prefetch()).toMatchObject({ interrupted: false });
      const { steps, blocksRead } = await tail.decode(asked);
      expect(steps).toEqual(expected);
      const use = await model.memory();
      expect(use.memoryBytesMax).toBe(2 * slabBytes);
      expect(use.residentBytes).toBeLessThanOrEqual(2 * slabBytes);
      expect(use.kvBytes).toBeGreaterThan(3 * use.residentBytes);
      expect(use.blocksRead).toBe(blocksRead);
      expect(use.blocksRead).toBeGreaterThan(0);
      expect(use.blocksPrefetched > 0).toBe(ahead);
      expect(use.prefetchedUsed > 0).toBe(ahead);
      expect(use.prefetchedUsed).toBeLessThanOrEqual(use.blocksPrefetched);
      expect(use.diskBytesRead).toBe((use.blocksRead + use.blocksPrefetched) * extentBytes);
      await model.dispose();
    }
  });

  it("may come when there is more than it allows, which then goes to disk", async () => {
    const model = await open(spill());
    const context = await computed(model);
    const expected = (await (await tailOf(model, context, few)).decode(asked)).steps;
    expect((await model.memory()).diskBytesWritten).toBe(0);
    await model.limitMemory({ kvBytesMax: 2 * slabBytes });
    const use = await model.memory();
    expect(use.residentBytes).toBeLessThanOrEqual(2 * slabBytes);
    expect(use.blocksSpilled + use.blocksWrittenBehind).toBeGreaterThan(200);
    expect(use.diskBytesWritten).toBeGreaterThan(200 * extentBytes);
    expect((await (await tailOf(model, context, few)).decode(asked)).steps).toEqual(expected);
    // What spilled is in a file without a name.
    expect(readdirSync(folder).filter((name) => name.startsWith("spill"))).toEqual([]);
    await model.dispose();
  });

  it("needs a disk, and says when that is full", async () => {
    const model = await open();
    await computed(model);
    expect(await codeOf(model.limitMemory({ kvBytesMax: slabBytes }))).toBe("outOfMemory");
    expect(await codeOf(model.limitMemory({ kvBytesMax: 0 }))).toBe("invalidArgument");
    await model.dispose();
    const little = await open({ ...spill(), spillBytesMax: 20 * extentBytes });
    await little.limitMemory({ kvBytesMax: slabBytes });
    expect(await codeOf(computed(little))).toBe("noSpace");
    await little.dispose();
    expect(await codeOf(little.limitMemory({ kvBytesMax: slabBytes }))).toBe("disposed");
  });

  it("is needless to read ahead where all is in memory", async () => {
    const model = await open();
    const tail = await tailOf(model, await loaded(model), few);
    expect(await tail.prefetch()).toEqual({ blocks: 0, interrupted: false });
    await tail.dispose();
    expect(await codeOf(tail.prefetch())).toBe("disposed");
    await model.dispose();
  });
});
