import { describe, expect, it } from "vitest";
import { codeBlocks, isApplicable } from "../../../../extension/apply/codeBlocks";
import { codeToApply, noHint, offersOf } from "../../../../extension/apply/offers";
import { testPathFor } from "../../../../extension/apply/testPath";

describe("code blocks of an answer", () => {
  it("are found with their language, and the path the answer gives for them", () => {
    const answer = [
      "Change `src/fees.ts`:",
      "```ts",
      "let a;",
      "```",
      "and",
      "```python tools/a.py",
      "x = 1",
      "```",
      "~~~js",
      "// lib/b.js",
      "let b;",
      "~~~",
    ].join("\n");
    expect(codeBlocks(answer)).toEqual([
      { code: "let a;", language: "ts", path: "src/fees.ts" },
      { code: "x = 1", language: "python", path: "tools/a.py" },
      { code: "// lib/b.js\nlet b;", language: "js", path: "lib/b.js" },
    ]);
  });

  it("end at their own fence alone, and count when the answer was cut", () => {
    expect(codeBlocks("````md\n```\nx\n```\n````\n")).toEqual([{ code: "```\nx\n```", language: "md", path: "" }]);
    expect(codeBlocks("```ts\nlet a")).toEqual([{ code: "let a", language: "ts", path: "" }]);
    expect(codeBlocks("```ts")).toEqual([]);
  });

  it("name no path where the line above names two", () => {
    expect(codeBlocks("Between src/a.ts and src/b.ts:\n```\nx\n```")[0]?.path).toBe("");
  });

  it("of commands and output are for no file", () => {
    expect(offersOf("```console\nnpm test\n```\n```ts\nlet a;\n```", noHint)).toHaveLength(1);
    expect(isApplicable({ code: "  ", language: "ts", path: "" })).toBe(false);
  });

  it("go where new files belong when they are new", () => {
    const hint = { about: "file:///x", lines: null, path: "test/fees.test.ts" };
    expect(codeToApply("t();", "src/fees.js", hint)).toEqual({
      code: "t();",
      path: "test/fees.test.ts",
      about: "",
      lines: null,
    });
  });
});

describe("the place of a test", () => {
  it.each([
    ["src/fees.ts", ["src/fees.ts", "test/desk.test.ts"], "test/fees.test.ts"],
    ["src/fees.ts", ["src/desk.spec.ts", "test/desk.test.ts"], "src/fees.spec.ts"],
    ["tools/report.py", ["tools/test_forecast.py", "test/a.test.ts"], "tools/test_report.py"],
    ["pkg/a.go", ["pkg/b_test.go"], "pkg/a_test.go"],
    ["a.ts", [], "a.test.ts"],
    ["x/a.py", [], "x/test_a.py"],
  ])("of %s", (file, known, test) => expect(testPathFor(file, known)).toBe(test));
});
