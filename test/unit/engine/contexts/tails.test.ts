import { describe, expect, it } from "vitest";
import { free, sharedPrefix, TailPool, type Tail } from "../../../../engine/contexts/tails";
import type { NativeSequence } from "../../../../engine/native/addon";
import { Scheduler } from "../../../../engine/scheduler/scheduler";
import { bytesToTokens, CopyModel } from "../../../support/copyModel";

async function setUp(tailsMax = 3) {
  const model = new CopyModel();
  const scheduler = new Scheduler(model, { waitingMax: 100 });
  const pool = new TailPool(scheduler, tailsMax);
  let created = 0;
  const create = async (): Promise<Tail> => {
    created += 1;
    const sequence = await scheduler.upkeep((native) => native.createSequence({ basePosition: 0, attends: [] }));
    return { sequence, segments: [], attends: "a", selection: "" };
  };
  const acquire = (text: string, attends = "a"): Promise<Tail> => pool.acquire(attends, bytesToTokens(text), create);
  return { model, scheduler, pool, acquire, created: () => created };
}

const long = (text: string): string => text.repeat(100);

describe("TailPool", () => {
  it("gives a tail again whose text the new one goes on from", async () => {
    const { acquire, pool, created } = await setUp();
    const first = await acquire("hello");
    pool.release(first, bytesToTokens("hello world"));
    expect((await acquire("hello world, again")).sequence).toBe(first.sequence);
    expect(pool.size).toBe(0);
    expect(created()).toBe(1);
  });

  it("never gives the same tail to two at once", async () => {
    const { acquire, pool, created } = await setUp();
    pool.release(await acquire("hello"), bytesToTokens("hello"));
    const [one, two] = [await acquire("hello"), await acquire("hello")];
    expect(one.sequence).not.toBe(two.sequence);
    expect(created()).toBe(2);
  });

  it("copies a tail of which only the beginning fits, and keeps the original for its own conversation", async () => {
    const { acquire, pool, created } = await setUp();
    const first = await acquire("x");
    pool.release(first, bytesToTokens(long("shared") + long("one goes on very long")));
    const copy = await acquire(`${long("shared")}two`);
    expect(copy.sequence).not.toBe(first.sequence);
    expect(created()).toBe(1);
    expect(pool.size).toBe(1);
  });

  it("does not copy for a few tokens that all prompts share", async () => {
    const { acquire, pool, created } = await setUp();
    pool.release(await acquire("x"), bytesToTokens(`user: ${long("one")}`));
    await acquire(`user: ${long("two")}`);
    expect(created()).toBe(2);
  });

  it("never gives a tail that attends to something else", async () => {
    const { acquire, pool, created } = await setUp();
    pool.release(await acquire("hello"), bytesToTokens("hello"));
    await acquire("hello", "b");
    expect(created()).toBe(2);
  });

  it("keeps no more than its maximum, forgets the oldest, and frees what it forgets", async () => {
    const { acquire, pool, model, scheduler } = await setUp(2);
    const tails = [await acquire("one"), await acquire("two"), await acquire("three")];
    for (const [index, tail] of tails.entries())
      pool.release(tail, bytesToTokens(["one", "two", "three"][index] ?? ""));
    await scheduler.whenIdle();
    expect(pool.size).toBe(2);
    expect(model.workshop.sequencesAlive).toBe(2);
  });

  it("frees what attends to the wrong things, and everything once closed", async () => {
    const { acquire, pool, model, scheduler } = await setUp();
    pool.release(await acquire("one"), bytesToTokens("one"));
    pool.keepOnly(({ attends }) => attends === "b");
    await scheduler.whenIdle();
    expect(model.workshop.sequencesAlive).toBe(0);
    const late = await acquire("two");
    pool.close();
    pool.release(late, bytesToTokens("two"));
    await scheduler.whenIdle();
    expect(model.workshop.sequencesAlive).toBe(0);
  });
});

describe("free", () => {
  it("does not mind a scheduler that is closed", async () => {
    const { scheduler, acquire } = await setUp();
    const { sequence }: { sequence: NativeSequence } = await acquire("x");
    await scheduler.dispose();
    expect(() => free(scheduler, sequence)).not.toThrow();
  });
});

describe("sharedPrefix", () => {
  it("counts equal tokens from the start", () => {
    const tokens = Uint32Array.of(1, 2, 3);
    expect(sharedPrefix(tokens, tokens)).toBe(3);
    expect(sharedPrefix(tokens, Uint32Array.of(1, 2, 4))).toBe(2);
    expect(sharedPrefix(tokens, new Uint32Array())).toBe(0);
  });
});
