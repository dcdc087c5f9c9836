import { describe, expect, it } from "vitest";
import { declaredNames, placed, type Declaration, type PlacementInput } from "../../../../extension/apply/placement";

const file = [
  'import { a } from "./a.js";', // 0
  "", // 1
  "/** Old comment. */", // 2
  "export function one(x: number): number {", // 3
  "  return x;", // 4
  "}", // 5
  "", // 6
  "export class Box {", // 7
  "  get two(): number {", // 8
  "    return 2;", // 9
  "  }", // 10
  "}", // 11
  "", // 12
].join("\n");

const declarations: readonly Declaration[] = [
  { name: "one", from: 3, to: 5 },
  { name: "Box", from: 7, to: 11 },
  { name: "two", from: 8, to: 10 },
];

function put(code: string, more: Partial<PlacementInput> = {}) {
  return placed({ text: file, code, selected: null, cursorLine: 5, declarations, ...more });
}

describe("where code goes", () => {
  it("takes the place of the declaration of its name, and leaves the comment above", () => {
    const { text, kind } = put("export function one(x: number): number {\n  return x + 1;\n}");
    expect(kind).toBe("declaration");
    expect(text).toBe(file.replace("return x;", "return x + 1;"));
  });

  it("takes the place of the comment too when it brings one", () => {
    const { text } = put("\n/** New. */\nexport function one(x: number): number {\n  return x;\n}\n\n");
    expect(text).toBe(file.replace("Old comment.", "New."));
  });

  it("takes the place of the selected lines, indented as they were", () => {
    const { text, kind } = put("return 3;", { selected: { from: 9, to: 9 } });
    expect(kind).toBe("selection");
    expect(text).toBe(file.replace("    return 2;", "    return 3;"));
  });

  it("goes above the selected code where it is a comment alone, ended if the answer did not end it", () => {
    const whole = put("/** New. */", { selected: { from: 2, to: 5 } });
    expect(whole).toEqual({ kind: "selection", text: file.replace("Old comment.", "New.") });
    const open = put("/**\n * Returns two.", { selected: { from: 8, to: 10 } });
    expect(open.text).toBe(file.replace("  get two", "  /**\n   * Returns two.\n   */\n  get two"));
    const comment = put("/** Newer. */", { selected: { from: 2, to: 2 } });
    expect(comment.text).toBe(file.replace("Old comment.", "Newer."));
  });

  it("goes above the selected code without the code below it that breaks off", () => {
    const selected = { from: 3, to: 5 };
    const broken = put("/** New. */\n\nexport function one(x: number): number {", { selected });
    expect(broken).toEqual({ kind: "selection", text: file.replace("Old comment.", "New.") });
    const whole = put("/** New. */\nexport function one(x: number): number {\n  return -x;\n}", { selected });
    expect(whole.text).toBe(file.replace("Old comment.", "New.").replace("return x;", "return -x;"));
  });

  it("takes the whole declaration when the selection was a part of it", () => {
    const code = "export function one(x: number): number {\n  return -x;\n}";
    expect(put(code, { selected: { from: 4, to: 4 } }).text).toBe(file.replace("return x;", "return -x;"));
  });

  it("is the file anew when it has its imports and all it declares", () => {
    const code = 'import { b } from "./b.js";\n\nexport function one() {}\n\nexport class Box {}';
    expect(put(code)).toEqual({ kind: "file", text: `${code}\n` });
  });

  it("goes below the cursor when it has no other place", () => {
    const { text, kind } = put("export function three() {}", { cursorLine: 5 });
    expect(kind).toBe("cursor");
    expect(text).toBe(file.replace("  return x;\n}\n", "  return x;\n}\nexport function three() {}\n"));
  });

  it("swallows nothing that lies between two declarations it replaces", () => {
    const more = [...declarations, { name: "last", from: 12, to: 12 }];
    const { text } = put("export function one() {}\nexport const last = 1;", { declarations: more });
    expect(text).toContain("class Box");
  });

  it("keeps the line ends of the file", () => {
    const text = file.replaceAll("\n", "\r\n");
    const after = placed({ text, code: "export function one() {\n}", selected: null, cursorLine: 0, declarations });
    expect(after.text.replaceAll("\r\n", "")).not.toContain("\n");
  });

  it("fills an empty file", () => {
    const after = placed({ text: "", code: "let a;", selected: null, cursorLine: 0, declarations: [] });
    expect(after.text).toBe("let a;");
  });
});

describe("names that code declares", () => {
  it.each([
    ["export async function load<T>(x) {", ["load"]],
    ["  const a = 1;\n    const inner = 2;", ["a"]],
    ["def read(path):\n    x = 1", ["read"]],
    ["pub fn main() {", ["main"]],
    ["return 1;", []],
    ["", []],
  ])("%j", (code, names) => expect(declaredNames(code.split("\n"))).toEqual(names));
});
