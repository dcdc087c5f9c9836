import { describe, expect, it } from "vitest";
import { pinsMax, Pins, wholeOf, type LinesReplaced } from "../../../extension/pins";

function memento() {
  const kept = new Map<string, unknown>();
  return {
    kept,
    get: (key: string): never => kept.get(key) as never,
    update: (key: string, value: unknown) => Promise.resolve(void kept.set(key, value)),
  };
}

const lines = (path: string, startLine: number, endLine: number) => ({ path, startLine, endLine });

describe("pins", () => {
  it("are kept by repository, once each, up to a maximum", async () => {
    const pins = new Pins(memento());
    expect(await pins.add("/a", wholeOf("x.ts"))).toBe(true);
    expect(await pins.add("/a", wholeOf("x.ts"))).toBe(true);
    expect([pins.of("/a"), pins.of("/b")]).toEqual([[wholeOf("x.ts")], []]);
    for (let index = 1; index < pinsMax; index += 1) expect(await pins.add("/a", wholeOf(`${index}.ts`))).toBe(true);
    expect(await pins.add("/a", wholeOf("too-many.ts"))).toBe(false);
    await pins.remove("/a", wholeOf("x.ts"));
    expect(pins.has("/a", "x.ts")).toBe(false);
  });

  it("of lines stand beside those of whole files, and become one piece where they meet", async () => {
    const pins = new Pins(memento());
    expect(pins.hasLines).toBe(false);
    await pins.add("/a", wholeOf("x.ts"));
    await pins.add("/a", lines("x.ts", 10, 20));
    await pins.add("/a", lines("x.ts", 1, 4));
    await pins.add("/a", lines("y.ts", 3, 3));
    expect(pins.linesOf("/a", "x.ts")).toEqual([lines("x.ts", 1, 4), lines("x.ts", 10, 20)]);
    await pins.add("/a", lines("x.ts", 4, 12));
    expect(pins.linesOf("/a", "x.ts")).toEqual([lines("x.ts", 1, 20)]);
    expect([pins.has("/a", "x.ts"), pins.has("/a", "y.ts"), pins.hasLines]).toEqual([true, false, true]);
    await pins.remove("/a", lines("x.ts", 1, 20));
    expect(pins.of("/a")).toEqual([wholeOf("x.ts"), lines("y.ts", 3, 3)]);
  });

  it("survive what another version has written, and keep the paths of an older one", () => {
    const bad = [
      { path: "x", startLine: 4, endLine: 2 },
      { path: "x", startLine: 0, endLine: 2 },
      { path: 3 },
      null,
      1,
    ];
    for (const value of [null, 3, [], { "/a": "x" }, { "/a": bad }]) {
      const store = memento();
      store.kept.set("nosa.pins", value);
      expect(new Pins(store).of("/a")).toEqual([]);
    }
    const store = memento();
    store.kept.set("nosa.pins", { "/a": ["x.ts", lines("y.ts", 2, 3)] });
    expect(new Pins(store).of("/a")).toEqual([wholeOf("x.ts"), lines("y.ts", 2, 3)]);
  });

  it.each<[string, LinesReplaced, readonly (readonly [number, number])[]]>([
    ["a line above is added", { first: 3, last: 3, lines: 2, isFirstGone: false }, [[11, 21]]],
    ["two lines above are deleted", { first: 3, last: 5, lines: 1, isFirstGone: true }, [[8, 18]]],
    ["a line above is changed", { first: 9, last: 9, lines: 1, isFirstGone: false }, [[10, 20]]],
    ["something below is deleted", { first: 21, last: 30, lines: 1, isFirstGone: true }, [[10, 20]]],
    ["a line within is added", { first: 12, last: 12, lines: 2, isFirstGone: false }, [[10, 21]]],
    ["lines within are deleted", { first: 12, last: 15, lines: 1, isFirstGone: true }, [[10, 17]]],
    ["the line above, with its end, is deleted", { first: 9, last: 10, lines: 1, isFirstGone: true }, [[9, 19]]],
    ["its first lines are deleted, with some above", { first: 8, last: 12, lines: 1, isFirstGone: true }, [[8, 16]]],
    ["its last lines are deleted, with some below", { first: 18, last: 25, lines: 1, isFirstGone: true }, [[10, 17]]],
    ["all of it is deleted", { first: 10, last: 21, lines: 1, isFirstGone: true }, []],
    ["all of it and more is deleted", { first: 9, last: 22, lines: 1, isFirstGone: false }, []],
    ["the whole file is written anew", { first: 1, last: 40, lines: 15, isFirstGone: true }, [[10, 15]]],
  ])("of lines follow the text when %s", async (_, replaced, left) => {
    const pins = new Pins(memento());
    await pins.add("/a", lines("x.ts", 10, 20));
    await pins.add("/a", wholeOf("x.ts"));
    await pins.follow("/a", "other.ts", [replaced]);
    expect(pins.linesOf("/a", "x.ts")).toEqual([lines("x.ts", 10, 20)]);
    await pins.follow("/a", "x.ts", [replaced]);
    expect(pins.linesOf("/a", "x.ts")).toEqual(left.map(([first, last]) => lines("x.ts", first, last)));
    expect(pins.has("/a", "x.ts")).toBe(true);
  });
});
