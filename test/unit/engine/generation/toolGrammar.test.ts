import { describe, expect, it } from "vitest";
import { toolGrammar } from "../../../../engine/generation/toolGrammar";
import type { CallRules, ValueRule } from "../../../../engine/native/addon";

function rulesOf(...schemas: readonly unknown[]): CallRules {
  const functions = schemas.map((schema, at) => ({ name: `f${at}`, schema }));
  return toolGrammar({ open: "<c>", close: "</c>", required: false, functions });
}

const anythingKinds = ["object", "array", "string", "number", "text"];

/** The rules of a call's arguments as one tree; what was met on the way down is "again". */
function tree(rules: CallRules, index = rules.calls[0]?.arguments ?? -1, above: readonly number[] = []): unknown {
  const rule: ValueRule | undefined = rules.values[index];
  if (above.includes(index)) return "again";
  if (rule?.kind === "anyOf" && anythingKinds.every((kind, at) => rules.values[rule.values[at] ?? -1]?.kind === kind))
    return "anything";
  const inner = (value: number): unknown => tree(rules, value, [...above, index]);
  switch (rule?.kind) {
    case "text":
      return rule.texts;
    case "object":
      return {
        ...Object.fromEntries(
          rule.properties.map(({ key, value, required }) => [required ? `${key}!` : key, inner(value)]),
        ),
        ...(rule.rest === undefined ? {} : { "...": inner(rule.rest) }),
      };
    case "array":
      return [rule.min, rule.max, inner(rule.items)];
    case "anyOf":
      return { either: rule.values.map(inner) };
    default:
      return rule?.kind;
  }
}

/** The tree of the one property `it` of a call. */
function ofProperty(schema: unknown, more: object = {}): unknown {
  const made = tree(rulesOf({ type: "object", properties: { it: schema }, ...more }));
  return (made as Record<string, unknown>)["it"];
}

describe("what a tool's schema lets a model write", () => {
  it("is one of the functions, by name, and its arguments", () => {
    const rules = rulesOf({ type: "object" }, { type: "object", properties: {} });
    expect(rules.calls.map(({ begin, end }) => begin + end)).toEqual([
      '{"name": "f0", "arguments": }',
      '{"name": "f1", "arguments": }',
    ]);
    const odd = toolGrammar({
      open: "a",
      close: "b",
      required: true,
      functions: [
        { name: 'a"b', schema: {} },
        { name: 'a"b', schema: {} },
      ],
    });
    expect(odd.calls).toHaveLength(1);
    expect(odd).toMatchObject({ open: "a", close: "b", required: true });
    expect(odd.calls[0]?.begin).toBe('{"name": "a\\"b", "arguments": ');
  });

  it("has types, constants and lists", () => {
    expect(ofProperty({ type: "string", maxLength: 3 })).toBe("string");
    expect(ofProperty({ type: "integer", minimum: 1 })).toBe("integer");
    expect(ofProperty({ type: "boolean" })).toEqual(["true", "false"]);
    expect(ofProperty({ type: ["number", "null"] })).toEqual({ either: ["number", ["null"]] });
    expect(ofProperty({ enum: ["a\n", 1, null, { b: [1] }, 1] })).toEqual(['"a\\n"', "1", "null", '{"b":[1]}']);
    expect(ofProperty({ const: "x" })).toEqual(['"x"']);
    expect(ofProperty({ type: "array", items: { type: "number" }, minItems: 1, maxItems: 4 })).toEqual([
      1,
      4,
      "number",
    ]);
    expect(ofProperty({ anyOf: [{ type: "string" }, { oneOf: [{ type: "number" }, { const: 1 }] }] })).toEqual({
      either: ["string", "number", ["1"]],
    });
  });

  it("has no other properties than those named, unless the schema says so", () => {
    const properties = { 'a"b': { type: "string" }, n: { type: "integer" } };
    expect(tree(rulesOf({ properties, required: ["n"] }))).toEqual({ 'a\\"b': "string", "n!": "integer" });
    const closed = tree(rulesOf({ type: "object", properties, required: ["other"], additionalProperties: false }));
    expect(closed).toMatchObject({ n: "integer", "other!": expect.anything() });
    const open = tree(rulesOf({ type: "object", properties, additionalProperties: { type: "boolean" } }));
    expect(open).toMatchObject({ "...": ["true", "false"] });
    expect(tree(rulesOf({ type: "object" }))).toEqual({ "...": "anything" });
    expect(tree(rulesOf({ type: "object", additionalProperties: false }))).toEqual({});
    const many = Object.fromEntries(Array.from({ length: 65 }, (_, at) => [`p${at}`, { type: "string" }]));
    expect(tree(rulesOf({ type: "object", properties: many }))).toEqual(tree(rulesOf({ type: "object" })));
  });

  it("follows references, also to themselves", () => {
    const $defs = {
      point: { type: "object", properties: { x: { type: "number" } }, required: ["x"] },
      tree: {
        anyOf: [{ type: "object", properties: { left: { $ref: "#/$defs/tree" } } }, { type: "null" }],
      },
    };
    expect(ofProperty({ $ref: "#/$defs/point" }, { $defs })).toEqual({ "x!": "number" });
    expect(JSON.stringify(ofProperty({ $ref: "#/$defs/tree" }, { $defs }))).toContain("again");
    expect(
      ofProperty({ allOf: [{ $ref: "#/$defs/point" }, { properties: { y: { type: "string" } } }] }, { $defs }),
    ).toEqual({ "x!": "number", y: "string" });
    for (const $ref of ["#/$defs/none", "https://example.org/schema", "#"]) expect(ofProperty({ $ref })).toBeDefined();
    const circle = { a: { $ref: "#/$defs/b" }, b: { $ref: "#/$defs/a" } };
    expect(ofProperty({ $ref: "#/$defs/a" }, { $defs: circle })).toBe("anything");
  });

  it("is anything where the schema says nothing that we know, and an object for arguments all the same", () => {
    for (const schema of [
      {},
      true,
      { type: "date" },
      { not: { type: "string" } },
      { anyOf: [{ type: "string" }, {}] },
    ]) {
      expect(ofProperty(schema)).toBe("anything");
    }
    for (const schema of [undefined, null, true, 7, "x", {}, { type: "string" }, { anyOf: [{}] }, []]) {
      expect(tree(rulesOf(schema))).toEqual(tree(rulesOf({ type: "object" })));
    }
    const either = rulesOf({ anyOf: [{ type: "string" }, { type: "object", properties: { a: { type: "string" } } }] });
    expect(tree(either)).toEqual({ a: "string" });
  });

  it("stays small, whatever the schema", () => {
    const wide = (level: number): object =>
      level === 0
        ? { type: "string" }
        : { anyOf: [wide(level - 1), wide(level - 1), wide(level - 1), wide(level - 1)] };
    expect(rulesOf(wide(9)).values.length).toBeLessThan(100_000);
    const $defs = Object.fromEntries(
      Array.from({ length: 24 }, (_, at) => {
        const next = { $ref: `#/$defs/d${at + 1}` };
        return [`d${at}`, { anyOf: [next, next, next] }];
      }),
    );
    expect(rulesOf({ $ref: "#/$defs/d0", $defs }).values.length).toBeLessThan(100_000);
  });
});
