import { describe, expect, it } from "vitest";
import { shapeAt } from "../../../../engine/completions/shape";

describe("shapeAt", () => {
  const cases: readonly (readonly [string, string, string, "none" | "line" | "lines"])[] = [
    ["in the middle of a word", "const na", "me = 1;", "none"],
    ["before other code on the line", "x = ", "compute(1)", "none"],
    ["before closing brackets", "call(", ");\n", "line"],
    ["at the end of a started line", "const total = ", "\nreturn total;", "line"],
    ["after an opening brace", "function f() {", "\n}", "lines"],
    ["after a colon in Python", "def f(x):", "", "lines"],
    ["on an empty line inside a block", "function f() {\n  ", "\n}", "lines"],
    ["on an empty line after an opening line", "if x:\n", "\n", "lines"],
    ["on an empty line at the top level", "import a\n", "\n", "line"],
    ["in an empty file", "", "", "lines"],
  ];
  it.each(cases)("%s", (_, before, after, shape) => {
    expect(shapeAt(before, after)).toBe(shape);
  });
});
