import { describe, expect, it } from "vitest";
import { schemaProblem } from "../../../extension/jsonSchema";

const schema = {
  type: "object",
  required: ["path"],
  additionalProperties: false,
  properties: {
    path: { type: "string" },
    line: { type: "integer" },
    mode: { enum: ["read", "write"] },
    tags: { type: "array", items: { type: "string" } },
    range: {
      anyOf: [{ type: "null" }, { type: "object", required: ["from"], properties: { from: { type: "number" } } }],
    },
  },
};

describe("arguments of a tool", () => {
  it.each([
    { path: "a" },
    { path: "a", line: 3, mode: "read", tags: ["x", "y"], range: null },
    { path: "", tags: [], range: { from: 1.5 } },
  ])("that fit: %j", (value) => expect(schemaProblem(schema, value)).toBeUndefined());

  it.each([
    [{}, "arguments.path is missing"],
    ["a", "arguments must be object"],
    [[], "arguments must be object"],
    [null, "arguments must be object"],
    [{ path: 3 }, "arguments.path must be string"],
    [{ path: "a", line: 1.5 }, "arguments.line must be integer"],
    [{ path: "a", mode: "delete" }, 'arguments.mode must be one of "read", "write"'],
    [{ path: "a", tags: ["x", 4] }, "arguments.tags[1] must be string"],
    [{ path: "a", range: {} }, "arguments.range must be null"],
    [{ path: "a", other: 1 }, "arguments.other is not known"],
  ])("that do not: %j", (value, problem) => expect(schemaProblem(schema, value)).toBe(problem));

  it("asks nothing where the schema asks nothing", () => {
    for (const nothing of [undefined, true, {}, { description: "any" }])
      expect(schemaProblem(nothing, [1])).toBeUndefined();
    expect(schemaProblem(false, 1)).toBe("arguments must not be given");
    expect(schemaProblem({ type: ["string", "null"] }, 3)).toBe("arguments must be string or null");
    expect(schemaProblem({ allOf: [{ type: "object" }, { required: ["a"] }] }, {})).toBe("arguments.a is missing");
    expect(schemaProblem({ const: 4 }, 5)).toBe("arguments must be one of 4");
  });
});
