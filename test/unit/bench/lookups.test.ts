import { describe, expect, it } from "vitest";
import { bootstrap } from "../../../bench/lib/figures.mjs";
import { definitions, question } from "../../../bench/lookups/definitions.mjs";
import { lookupSet } from "../../../bench/lookups/set.mjs";
import { Snippets } from "../../../bench/lookups/snippets.mjs";

const files = [
  {
    path: "lib/parse.js",
    text: [
      "export function parseHeaders(headers, target) {",
      "  return target;",
      "}",
      "const maxAttempts = 2 ** 5;",
      "class SocketFailure extends TransportError {",
      "  closeQuietly (reason, timeout = 5) {",
      "    if (reasonable (reason)) {",
      "    }",
      "  }",
      "}",
      "function twice(value, count) {",
    ].join("\n"),
  },
  {
    path: "tool.py",
    text: "async def read_ledger(path: str, year: int) -> Ledger:\n    pass\ndef twice(value, count):\n    pass\n",
  },
  { path: "notes.md", text: "function written_in_prose(one, two) {" },
];

describe("definitions", () => {
  it("finds the first lines of definitions, and none whose name stands for two", () => {
    expect(definitions(files).map(({ path, line, lead, name, rest }) => [path, line, lead + name, rest])).toEqual([
      ["lib/parse.js", 1, "export function parseHeaders", "(headers, target) {"],
      ["lib/parse.js", 5, "class SocketFailure", " extends TransportError {"],
      ["lib/parse.js", 6, "closeQuietly", " (reason, timeout = 5) {"],
      ["tool.py", 1, "async def read_ledger", "(path: str, year: int) -> Ledger:"],
    ]);
  });

  it("asks for what stands between the name and what closes the line", () => {
    const [first] = definitions(files);
    expect(first).toBeDefined();
    if (first === undefined) return;
    expect(question(first)).toEqual({
      question: "Quote the line that defines `parseHeaders`, exactly as it stands in the repository.",
      start: "```javascript\nexport function parseHeaders",
      answer: "(headers, target",
    });
  });
});

describe("Snippets", () => {
  it("puts the passage first that holds the rare words of the question", () => {
    const filler = Array.from({ length: 30 }, (_, at) => ({
      path: `src/file${at}.js`,
      text: Array.from({ length: 50 }, (__, line) => `const value${at}x${line} = headers + target;`).join("\n"),
    }));
    const snippets = new Snippets([...filler, ...files]);
    expect(snippets.ranked("What are the parameters of `parseHeaders`?")[0]?.path).toBe("lib/parse.js");
    // A name is found by its parts too.
    expect(snippets.ranked("where is the ledger read")[0]?.path).toBe("tool.py");
  });
});

describe("bootstrap", () => {
  it("gives an interval around the mean, the same every time, and a point for equal values", () => {
    const values = Array.from({ length: 200 }, (_, at) => at % 7);
    const { mean, low, high } = bootstrap(values);
    expect(low).toBeLessThan(mean);
    expect(high).toBeGreaterThan(mean);
    expect(high - low).toBeLessThan(0.8);
    expect(high - low).toBeGreaterThan(0.3);
    expect(bootstrap(values)).toEqual({ mean, low, high });
    expect(bootstrap([3, 3, 3])).toEqual({ mean: 3, low: 3, high: 3 });
  });
});

describe("the set of look-ups", () => {
  const countsOf = (size: string, count: number): readonly number[] =>
    lookupSet(size, count).map(({ questions }) => questions.length);

  it("asks every repository the same number, and a spare one what is left", () => {
    expect(countsOf("32k", 12)).toEqual([4, 4, 4, 0]);
    expect(countsOf("128k", 12)).toEqual([12, 0]);
    expect(countsOf("32k", 200).reduce((sum, each) => sum + each)).toBe(200);
    expect(countsOf("128k", 200).reduce((sum, each) => sum + each)).toBe(200);
    expect(countsOf("128k", 200)[1]).toBeGreaterThan(0);
  });

  it("asks the same first, however many are asked", () => {
    const places = (count: number) =>
      lookupSet("32k", count).map(({ questions }) => questions.slice(0, 2).map(({ definition }) => definition.name));
    expect(places(9).slice(0, 3)).toEqual(places(60).slice(0, 3));
  });
});
