import { describe, expect, it } from "vitest";
import {
  CallReader,
  callText,
  responseText,
  toolInstructions,
  toolUse,
  type Part,
  type Tool,
} from "../../../extension/toolCalling";

/** Everything a reader makes of an answer that comes in pieces of the given sizes. */
function read(answer: string, pieceLength: number, tools: readonly Tool[] = []): Part[] {
  const reader = new CallReader(tools);
  const parts: Part[] = [];
  for (let at = 0; at < answer.length; at += pieceLength)
    parts.push(...reader.push(answer.slice(at, at + pieceLength)));
  parts.push(...reader.end());
  return parts;
}

/** Pieces of text joined, so that the size of pieces does not matter. */
function joined(parts: readonly Part[]): unknown[] {
  return parts.reduce<unknown[]>((all, part) => {
    const last = all.at(-1);
    if (part.kind === "call") return [...all, part.call];
    return typeof last === "string" ? [...all.slice(0, -1), last + part.text] : [...all, part.text];
  }, []);
}

const call = { name: "read_file", input: { path: "src/a.ts", lines: [1, 9] } };

describe("tool calls in an answer", () => {
  it.each([1, 2, 3, 7, 1000])("are found whatever the pieces (%i characters each)", (pieceLength) => {
    const answer = `Let me look.\n${callText(call)}\nand ${callText({ name: "list", input: {} })}`;
    expect(joined(read(answer, pieceLength))).toEqual(["Let me look.\n", call, "\nand ", { name: "list", input: {} }]);
  });

  it.each([1, 4, 1000])("are told from text that looks alike (%i characters each)", (pieceLength) => {
    for (const answer of [
      "a <b> and <tool_ and <tool_call",
      "<tool_call>not json</tool_call> rest",
      '<tool_call>{"name": 3}</tool_call>',
      '<tool_call>{"name": "x", "arguments": "y"}</tool_call>',
      "",
    ]) {
      expect(joined(read(answer, pieceLength)).join("")).toBe(answer);
    }
  });

  it("count without their end tag, when the answer ends there", () => {
    expect(joined(read('<tool_call>{"name": "list", "arguments": {}}', 5))).toEqual([{ name: "list", input: {} }]);
  });

  it.each([1, 5, 1000])(
    "count in a block of JSON that names a tool, as small code models write them (%i)",
    (pieceLength) => {
      const tools = [{ name: "read_file", description: "", schema: {} }];
      const expected = { name: "read_file", input: { path: "src/fees.ts" } };
      const given = '"name": "read_file", "arguments": {"path": "src/fees.ts"}';
      for (const block of [
        `\`\`\`json\n{\n  "type": "function",\n  "function": {${given}}\n}\n\`\`\``,
        `\`\`\`\n{${given}}\n\`\`\``,
        `\`\`\`json\n<tool_call>{${given}}</tool_call>\n\`\`\``,
        `\`\`\`json\n{${given}}`,
        `\`\`\`json\n{"name": "read_file", "arguments": "{\\"path\\": \\"src/fees.ts\\"}"}\n\`\`\``,
      ]) {
        expect(joined(read(block, pieceLength, tools))).toEqual([expected]);
      }
      // Code, unknown names, and everything where there are no tools, stay what they are.
      const code = 'Look:\n```ts\nlet a;\n```\n```json\n{"name": "other", "arguments": {}}\n```\nDone `x`.';
      expect(joined(read(code, pieceLength, tools)).join("")).toBe(code);
      const plain = `\`\`\`json\n{${given}}\n\`\`\``;
      expect(joined(read(plain, pieceLength))).toEqual([plain]);
    },
  );

  it.each([1, 5, 1000])("may speak of the tags themselves (%i characters each)", (pieceLength) => {
    const about = { name: "write", input: { text: 'say "\\</tool_call>" and <tool_call>', more: "\\" } };
    expect(joined(read(`${callText(about)} then ${callText(call)}`, pieceLength))).toEqual([about, " then ", call]);
  });

  it("are put to the engine with their schemas and the tags that the model is told of", () => {
    expect(toolUse([], true)).toBeUndefined();
    const schema = { type: "object", properties: { at: { type: "string" } } };
    const use = toolUse([{ name: "list", description: "Lists.", schema }], true);
    expect(use).toMatchObject({ required: true, functions: [{ name: "list", schema }] });
    expect(toolInstructions([{ name: "list", description: "", schema }], true)).toContain(`${use?.open}{"name"`);
  });

  it("hold back no more text than may become a tag", () => {
    expect(new CallReader().push("plain words <")).toEqual([{ kind: "text", text: "plain words " }]);
  });

  it("are described to the model with their signatures, or not at all", () => {
    expect(toolInstructions([], true)).toBe("");
    const told = toolInstructions([{ name: "list", description: "Lists.", schema: { type: "object" } }], false);
    expect(told).toContain('{"type":"function","function":{"name":"list","description":"Lists.","parameters"');
    expect(told).toContain("Answer in words");
    expect(responseText("42")).toBe("<tool_response>\n42\n</tool_response>");
  });
});
