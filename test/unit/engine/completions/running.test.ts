import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Place } from "../../../../engine/completions/cache";
import { Running } from "../../../../engine/completions/running";

const never = new AbortController().signal;

function at(before: string, after = "\n"): Place {
  return { uri: "file:///a.ts", basis: "model 3", before, after };
}

describe("a completion that is being written", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it("fits whoever typed its beginning, known yet or not", () => {
    const running = new Running(at("const a"));
    expect(running.fits(at("const a = "))).toBe(true);
    running.wrote(" = 12");
    expect(running.fits(at("const a = "))).toBe(true);
    expect(running.fits(at("const a = 123"))).toBe(true);
    expect(running.fits(at("const a: "))).toBe(false);
    running.end();
    expect(running.fits(at("const a = 123"))).toBe(false);
  });

  it("fits no other file, no other text behind the cursor, and nothing deleted", () => {
    const running = new Running(at("const a"));
    expect(running.fits({ ...at("const a"), uri: "file:///b.ts" })).toBe(false);
    expect(running.fits({ ...at("const a"), basis: "model 4" })).toBe(false);
    expect(running.fits(at("const a", ")\n"))).toBe(false);
    expect(running.fits(at("const "))).toBe(false);
  });

  it("tells who waits when it has ended", async () => {
    const running = new Running(at("a"));
    const waits = running.ended(at("ab"), never);
    running.wrote("bc");
    running.end();
    expect(await waits).toBe(true);
  });

  it("lets go of who typed something else, at once", async () => {
    const running = new Running(at("a"));
    const waits = running.ended(at("ax"), never);
    running.wrote("bc");
    expect(await waits).toBe(false);
  });

  it("tells who typed on as soon as it knows whether that was what is offered", async () => {
    const running = new Running(at("a"));
    expect(await running.follows(at("a"))).toBe(true);
    expect(await running.follows(at("b"))).toBe(false);
    const [same, other, longer] = ["ab", "ax", "abcd"].map((before) => running.follows(at(before)));
    running.wrote("b");
    expect([await same, await other]).toEqual([true, false]);
    running.wrote("bcd");
    expect(await longer).toBe(true);
    const never = running.follows(at("abcde"));
    running.stop();
    expect(await never).toBe(false);
  });

  it("goes on for a moment when nobody waits, then stops", async () => {
    const running = new Running(at("a"));
    const key = new AbortController();
    const waits = running.ended(at("a"), key.signal);
    key.abort();
    expect(await waits).toBe(false);
    await vi.advanceTimersByTimeAsync(200);
    expect(running.signal.aborted).toBe(false);
    const adopted = running.ended(at("ab"), never);
    await vi.advanceTimersByTimeAsync(5_000);
    expect(running.signal.aborted).toBe(false);
    running.wrote("x");
    expect(await adopted).toBe(false);
    await vi.advanceTimersByTimeAsync(5_000);
    expect(running.signal.aborted).toBe(true);
  });

  it("begun ahead, is urgent only while somebody waits, and then goes on as long as it takes", async () => {
    const running = new Running(at("a"), { ahead: true });
    expect([running.kind, running.awaitedSinceMs]).toEqual(["ahead", Number.POSITIVE_INFINITY]);
    await vi.advanceTimersByTimeAsync(5_000);
    expect(running.signal.aborted).toBe(false);
    const waits = running.ended(at("ab"), never);
    expect([running.kind, Number.isFinite(running.awaitedSinceMs)]).toEqual(["completion", true]);
    running.wrote("bc");
    running.end();
    expect(await waits).toBe(true);
    await running.over;
    expect(new Running(at("a")).kind).toBe("completion");
  });

  it("is not adopted after it was stopped", () => {
    const running = new Running(at("a"));
    running.stop();
    expect(running.fits(at("a"))).toBe(false);
  });
});
