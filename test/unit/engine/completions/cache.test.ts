import { describe, expect, it } from "vitest";
import { CompletionCache } from "../../../../engine/completions/cache";

const place = (before: string, after = "\n}", uri = "file:///a.ts", basis = "m 1") => ({ uri, before, after, basis });

describe("CompletionCache", () => {
  it("offers the rest while the user types what was offered", () => {
    const cache = new CompletionCache(8);
    cache.put(place("let x = "), "compute(1)");
    expect(cache.get(place("let x = "))).toBe("compute(1)");
    expect(cache.get(place("let x = com"))).toBe("pute(1)");
  });

  it("knows nothing when something else is typed, when all is typed, or before the place", () => {
    const cache = new CompletionCache(8);
    cache.put(place("let x = "), "compute(1)");
    expect(cache.get(place("let x = con"))).toBeUndefined();
    expect(cache.get(place("let x = compute(1)"))).toBeUndefined();
    expect(cache.get(place("let x"))).toBeUndefined();
  });

  it("is not fooled by another file, another suffix, other text before, or another context", () => {
    const cache = new CompletionCache(8);
    cache.put(place("let x = "), "compute(1)");
    expect(cache.get(place("let x = ", "\n}", "file:///b.ts"))).toBeUndefined();
    expect(cache.get(place("let x = ", ";"))).toBeUndefined();
    expect(cache.get(place("let y = "))).toBeUndefined();
    expect(cache.get(place("let x = ", "\n}", "file:///a.ts", "m 2"))).toBeUndefined();
  });

  it("remembers that there was nothing to offer", () => {
    const cache = new CompletionCache(8);
    cache.put(place("let x = "), "");
    expect(cache.get(place("let x = "))).toBe("");
    expect(cache.get(place("let x = 1"))).toBeUndefined();
  });

  it("forgets what was used longest ago", () => {
    const cache = new CompletionCache(2);
    cache.put(place("a"), "1");
    cache.put(place("b"), "2");
    cache.get(place("a"));
    cache.put(place("c"), "3");
    expect(cache.get(place("b"))).toBeUndefined();
    expect(cache.get(place("a"))).toBe("1");
  });
});
