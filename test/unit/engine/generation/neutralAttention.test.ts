import { describe, expect, it } from "vitest";
import type { Tail } from "../../../../engine/contexts/tails";
import { MassSum } from "../../../../engine/generation/masses";
import { measureNeutral, type NeutralChat } from "../../../../engine/generation/neutralAttention";
import { Scheduler } from "../../../../engine/scheduler/scheduler";
import { bytesToTokens, CopyModel, cueEnd, cueStart } from "../../../support/copyModel";

const blockTokens = 64;
/** A block each of as many characters, and a line of its own in the second. */
const read = `${"a".repeat(blockTokens)}the cue is here\n${"b".repeat(blockTokens)}`;

/** The copying model attends to where it finds its cue; without one it attends to all the same. */
const chat = (question: string, answer: string): NeutralChat => ({
  prompt: Uint32Array.of(cueStart, ...bytesToTokens(question), cueEnd),
  answer: bytesToTokens(answer),
});

async function setUp() {
  const model = new CopyModel();
  const scheduler = new Scheduler(model, { waitingMax: 100 });
  const segment = await scheduler.upkeep((native) => native.createSequence({ basePosition: 0, attends: [] }));
  await segment.setTokens(bytesToTokens(read));
  await segment.prefill({ tokensMax: 10_000 });
  const dropped: Tail[] = [];
  const attends = ["one"];
  const take = async (): Promise<Tail> => ({
    sequence: await scheduler.upkeep((native) => native.createSequence({ basePosition: 500, attends: [segment] })),
    segments: [],
    attends: attends.length > 1 ? (attends.shift() ?? "") : (attends[0] ?? ""),
    selection: "",
  });
  const tails = { take, drop: (tail: Tail) => void dropped.push(tail) };
  const job = { kind: "indexing", signal: new AbortController().signal } as const;
  return { scheduler, tails, job, dropped, attends };
}

const massOf = (masses: readonly { readonly block: number; readonly mass: number }[], block: number): number =>
  masses.find((each) => each.block === block)?.mass ?? 0;

describe("measureNeutral", () => {
  it("averages over the chats, however long their answers, and keeps no tail", async () => {
    const { scheduler, tails, job, dropped } = await setUp();
    const found = chat("the cue is", " here");
    const lost = chat("nowhere", "a much longer answer than the other");
    const { attends, masses } = await measureNeutral(scheduler, job, tails, [found, lost]);
    expect(attends).toBe("one");
    expect(massOf(masses, 1)).toBeGreaterThan(50 * massOf(masses, 0));
    const { masses: only } = await measureNeutral(scheduler, job, tails, [found]);
    expect(massOf(masses, 1)).toBeCloseTo((massOf(only, 1) + 0.001) / 2, 6);
    expect(dropped).toHaveLength(3);
  });

  it("starts anew when something else is attended to", async () => {
    const { scheduler, tails, job, attends } = await setUp();
    attends.splice(0, 1, "one", "two");
    const found = chat("the cue is", " here");
    const { attends: last, masses } = await measureNeutral(scheduler, job, tails, [found, chat("nowhere", "x")]);
    expect(last).toBe("two");
    expect(massOf(masses, 1)).toBeCloseTo(massOf(masses, 0), 9);
  });

  it("ends with its job, and leaves no tail behind", async () => {
    const { scheduler, tails, dropped } = await setUp();
    const stop = new AbortController();
    stop.abort();
    const job = { kind: "indexing", signal: stop.signal } as const;
    await expect(measureNeutral(scheduler, job, tails, [chat("a", "b")])).rejects.toMatchObject({ name: "Cancelled" });
    expect(dropped).toHaveLength(1);
  });
});

describe("MassSum", () => {
  it("weighs what it is given, and is empty before", () => {
    const sum = new MassSum();
    expect(sum.average()).toEqual([]);
    sum.add([{ sequence: 1, block: 2, mass: 0.4 }], 3);
    sum.add(
      [
        { sequence: 1, block: 2, mass: 0.8 },
        { sequence: 2, block: 2, mass: 0.4 },
      ],
      1,
    );
    const [first, second] = sum.average();
    expect(first).toMatchObject({ sequence: 1, block: 2 });
    expect(first?.mass).toBeCloseTo((0.4 * 3 + 0.8) / 4);
    expect(second).toEqual({ sequence: 2, block: 2, mass: 0.1 });
  });
});
