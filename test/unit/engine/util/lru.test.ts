import { describe, expect, it } from "vitest";
import { LruMap } from "../../../../engine/util/lru";

describe("LruMap", () => {
  it("forgets what was used longest ago, and looking counts as use", () => {
    const map = new LruMap<string, number>(2);
    map.set("a", 1);
    map.set("b", 2);
    map.get("a");
    map.set("c", 3);
    expect(map.size).toBe(2);
    expect(map.get("b")).toBeUndefined();
    expect(map.newestFirst().map(([key]) => key)).toEqual(["c", "a"]);
  });
});
