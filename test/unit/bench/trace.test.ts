import { describe, expect, test } from "vitest";
import { nextBurst, stretches } from "../../../bench/editor/trace.mjs";
import { seeded } from "../../../bench/lib/random.mjs";

const files = [
  {
    path: "a.js",
    text: Array.from({ length: 60 }, (_, line) => `  const value${line} = read(${line}, "some words");`).join("\n"),
  },
  {
    path: "prose.js",
    text: Array.from({ length: 60 }, () => "// Nothing that a person types as code.").join("\n"),
  },
];

/** What the keys of all bursts write, without what was taken back. */
function typed(text: string, random: () => number): string {
  let done = "";
  while (done.length < text.length) {
    const { keys } = nextBurst(text.slice(done.length), random);
    expect(keys.length).toBeGreaterThan(0);
    done += keys.map(({ key }: { readonly key: string }) => key).join("");
  }
  return done;
}

describe("the typing trace", () => {
  test("writes every stretch as it was, whatever is drawn", () => {
    for (const { text } of stretches(files, "any")) {
      for (let round = 0; round < 50; round++) expect(typed(text, seeded(`round ${round}`))).toBe(text);
    }
    expect(typed("\n\n    x", seeded("blank"))).toBe("\n\n    x");
  });

  test("is of code, lies inside its file, and is the same for the same seed", () => {
    const found = stretches(files, "seed");
    expect(found.length).toBeGreaterThan(0);
    for (const { path, startLine, endLine, text } of found) {
      expect(path).toBe("a.js");
      expect(files[0]?.text.split("\n").slice(startLine, endLine).join("\n")).toBe(text);
    }
    const plain = (each: { readonly path: string; readonly startLine: number }): string =>
      `${each.path}:${each.startLine}`;
    expect(stretches(files, "seed").map(plain)).toEqual(found.map(plain));
    expect(stretches(files, "another").map(plain)).not.toEqual(found.map(plain));
  });
});
