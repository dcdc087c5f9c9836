import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Ahead, lineBelow } from "../../../../engine/completions/ahead";
import type { Place } from "../../../../engine/completions/cache";

const at = (before: string, after = "\n}"): Place => ({ uri: "file:///a.ts", basis: "model 3", before, after });

describe("the place after an offer", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it("is begun once the offer has been read for a moment, and not when it was typed over at once", async () => {
    const ahead = new Ahead();
    const begun: string[] = [];
    ahead.offered(at("const a"), " = 12;", ({ before }) => begun.push(before));
    await vi.advanceTimersByTimeAsync(100);
    expect(ahead.asked(at("const ax"))).toBe(false);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(begun).toEqual([]);
    ahead.offered(at("const ax"), " = 13;", ({ before }) => begun.push(before));
    await vi.advanceTimersByTimeAsync(1_000);
    expect(begun).toEqual(["const ax = 13;"]);
  });

  it("is not begun when something else was typed, and is recognised all the same", async () => {
    const ahead = new Ahead();
    let begun = 0;
    ahead.offered(at("const a"), " = 12;", () => (begun += 1));
    ahead.left();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(begun).toBe(0);
    expect(ahead.asked(at("const a = 12;"))).toBe(true);
  });

  it("is recognised when it is asked for, once", () => {
    const ahead = new Ahead();
    ahead.offered(at("const a"), " = 12;", () => undefined);
    expect(ahead.asked(at("const a = 12;", ""))).toBe(false);
    expect(ahead.asked({ ...at("const a = 12;"), uri: "file:///b.ts" })).toBe(false);
    expect(ahead.asked(at("const a = 12;"))).toBe(true);
    expect(ahead.asked(at("const a = 12;"))).toBe(false);
  });

  it("is left alone for who never accepts, until one is accepted", async () => {
    const ahead = new Ahead();
    let begun = 0;
    const offer = async (before: string): Promise<void> => {
      ahead.asked(at(before));
      ahead.offered(at(before), "!", () => (begun += 1));
      await vi.advanceTimersByTimeAsync(1_000);
    };
    for (let index = 0; index < 40; index += 1) await offer(`line ${index}`);
    expect(begun).toBe(10);
    expect(ahead.asked(at("line 39!"))).toBe(true);
    await offer("another");
    expect(begun).toBe(11);
  });
});

describe("the line below", () => {
  it("is indented like the one that ends", () => {
    expect(lineBelow(at("{\n\t  call();", "\n}"))?.before).toBe("{\n\t  call();\n\t  ");
    expect(lineBelow(at("call();", ""))?.before).toBe("call();\n");
    expect(lineBelow(at("  call();", "  \r\n}"))?.before).toBe("  call();\r\n  ");
  });

  it("is nowhere but behind a line's end", () => {
    expect(lineBelow(at("call(", ");\n"))).toBeUndefined();
    expect(lineBelow(at("call();\n  ", "\n"))).toBeUndefined();
  });
});
