import { describe, expect, it } from "vitest";
import { definitions } from "../../../bench/lookups/definitions.mjs";
import { crossFileLines, cutWithin, homes } from "../../../eval/crossFile.mjs";
import { holePieces, holesOf } from "../../../eval/holes.mjs";
import { lookupQuestions } from "../../../eval/questions.mjs";

const prices = {
  path: "shop/prices.py",
  text: [
    "from decimal import Decimal",
    "",
    "def compute_total(prices, discount_percent):",
    "    undiscounted = sum(prices, Decimal(0))",
    "    return undiscounted",
    "",
    "def round_price(price_in_cents):",
    "    return 0",
  ].join("\n"),
};
const orders = {
  path: "shop/orders.py",
  text: [
    "from shop.prices import compute_total, round_price",
    "",
    "class Order:",
    "    def checkout(self, customer_name):",
    '        """Then compute_total says what is paid."""',
    "        # compute_total(nothing, of_the_kind)",
    "        paid = compute_total(self.lines, customer_discount)",
    "        first = round_price(first_price)",
    "        again = round_price(x)",
    "        return paid",
  ].join("\n"),
};
const files = [prices, orders];

describe("lookupQuestions", () => {
  const { signature, definition, calls } = lookupQuestions(files, definitions(files));
  const text = files.map((file) => file.text).join("\n");

  it("asks for the first line of a body behind the line that defines its name", () => {
    expect(definition.map(({ start, answer }) => start + answer)).toContain(
      "```python\ndef compute_total(prices, discount_percent):\n    undiscounted = sum(prices, Decimal(0",
    );
  });

  it("asks for no body that says too little", () => {
    expect(definition.some(({ question }) => question.includes("round_price"))).toBe(false);
  });

  it("asks for a use in another file, neither for imports nor for comments and sentences", () => {
    const asked = calls.find(({ question }) => question.includes("compute_total"));
    expect(asked).toMatchObject({ path: "shop/orders.py", answer: "(self.lines, customer_discount" });
    expect(asked?.question).toContain("`shop/orders.py`");
    expect(asked?.start).toBe("```python\npaid = compute_total");
  });

  it("has one right answer for each: start and answer stand once in all files", () => {
    for (const { start, answer } of [...signature, ...definition, ...calls]) {
      const quoted = (start + answer).replace(/^```\w+\n/, "");
      expect(text.split(quoted).length, quoted).toBe(2);
    }
  });

  it("leaves out a use whose line begins as another does", () => {
    const twice = { path: "shop/again.py", text: "paid = compute_total(something_else, entirely)" };
    const all = [...files, twice];
    const names = lookupQuestions(all, definitions(all)).calls.map(({ question }) => question);
    expect(names.some((question) => question.includes("compute_total"))).toBe(false);
  });
});

describe("homes", () => {
  it("knows the file of a name that one file defines, in several languages", () => {
    const found = homes([
      ...files,
      { path: "a.go", text: "func (t *Tree) Insert(key int) {\n\ntype Walker func()" },
      { path: "b.rs", text: "pub(crate) struct Matcher;\n    pub fn is_match(&self) -> bool {" },
      { path: "c.js", text: "export const flatten = () => 1;\nexports.unflatten = 2;\n  const local = 3;" },
    ]);
    const known = { compute_total: "shop/prices.py", Order: "shop/orders.py", Insert: "a.go", Walker: "a.go" };
    expect(Object.fromEntries(found)).toMatchObject({ ...known, Matcher: "b.rs", is_match: "b.rs", flatten: "c.js" });
    expect(found.get("unflatten")).toBe("c.js");
    expect(found.has("local")).toBe(false);
  });

  it("knows none of a name that two files define", () => {
    expect(homes([...files, { path: "copy.py", text: "def compute_total(a):" }]).has("compute_total")).toBe(false);
  });
});

describe("crossFileLines", () => {
  it("finds lines that use another file's name, once, and not where the text around shows it", () => {
    const padding = Array.from({ length: 90 }, (_, at) => `    text = text + line_${at}`);
    const use = "    paid = compute_total(lines, 3)";
    const text = ["# one", "# two", "# three", use, ...padding, use, ...padding, "    other = round_price(7)", use];
    const file = { path: "shop/long.py", text: text.join("\n") };
    const found = crossFileLines(file, homes([prices, file]));
    expect(found.map(({ number, name, home }) => [number, name, home])).toEqual([
      [4, "compute_total", "shop/prices.py"],
      [text.length - 1, "round_price", "shop/prices.py"],
    ]);
  });
});

describe("cutWithin", () => {
  const line = "    paid = compute_total(lines, 3)  ";

  it("cuts within a word or between words, behind the indentation, and leaves something to write", () => {
    for (const withinWord of [true, false]) {
      for (let seed = 0; seed < 60; seed += 1) {
        const { typed, rest, ...cut } = cutWithin(line, { withinWord, seed });
        expect(typed + rest).toBe(line.trimEnd());
        expect(typed.trim()).not.toBe("");
        expect(rest.length).toBeGreaterThanOrEqual(4);
        expect(cut.withinWord).toBe(withinWord);
        expect(/\w$/.test(typed) && /^\w/.test(rest)).toBe(withinWord);
      }
    }
  });
});

describe("holes", () => {
  const fim = { prefix: "<p>", suffix: "<s>", middle: "<m>" };
  const around = { before: "one\n", behind: "\nthree" };
  const written = (order: string): string =>
    holePieces(fim, order, around)
      .map(({ text }: { readonly text: string }) => text)
      .join("");

  it("are asked for in either order", () => {
    expect(written("prefix first")).toBe("<p>one\n<s>\nthree<m>");
    expect(written("suffix first")).toBe("<p><s>\nthree<m>one\n");
    const marks = holePieces(fim, "suffix first", around).filter(({ special }) => special);
    expect(marks.map(({ text }) => text)).toEqual(["<p>", "<s>", "<m>"]);
    expect(holePieces(undefined, "prefix first", around)).toEqual([{ text: "one\n", special: false }]);
  });

  it("hide a whole line, or what follows a point in it", () => {
    const cut = { typed: "  tw", rest: "o()" };
    const found = holesOf({ prefix: "one\n", suffix: "\nthree", line: "  two()", cut });
    expect(found.map(({ kind, before, answer }) => [kind, before, answer])).toEqual([
      ["infill", "one\n", "  two()"],
      ["infillSuffixFirst", "one\n", "  two()"],
      ["infillWithin", "one\n  tw", "o()"],
      ["infillWithinSuffixFirst", "one\n  tw", "o()"],
    ]);
  });
});
