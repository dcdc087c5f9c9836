import type { LanguageModelChatRequestMessage } from "vscode";
import { LanguageModelTextPart, LanguageModelToolCallPart, LanguageModelToolResultPart } from "vscode";
import { describe, expect, it } from "vitest";
import { modelInformation, plainMessage } from "../../../extension/languageModel";

function message(role: number, ...texts: readonly string[]): LanguageModelChatRequestMessage {
  const content = [...texts.map((text) => new LanguageModelTextPart(text)), { mimeType: "image/png" }];
  return { role, content, name: undefined };
}

describe("the language model", () => {
  it("takes the editor's third role for the system, not for an assistant", () => {
    expect(plainMessage(message(3, "Be brief."))).toEqual({ role: "system", content: "Be brief." });
    expect(plainMessage(message(1, "Hi ", "there"))).toEqual({ role: "user", content: "Hi there" });
    expect(plainMessage(message(2, "Hello"))).toEqual({ role: "assistant", content: "Hello" });
  });

  it("reads calls and results of earlier turns in the model's own words", () => {
    const asked = { role: 2, content: [new LanguageModelToolCallPart("1", "list", { at: "src" })], name: undefined };
    expect(plainMessage(asked).content).toBe('<tool_call>\n{"name":"list","arguments":{"at":"src"}}\n</tool_call>');
    const result = new LanguageModelToolResultPart("1", [new LanguageModelTextPart("a.ts")]);
    expect(plainMessage({ role: 1, content: [result], name: undefined })).toEqual({
      role: "user",
      content: "<tool_response>\na.ts\n</tool_response>",
    });
  });

  it("is listed before the engine runs, and calls tools, or agents would not list it", () => {
    const information = modelInformation(null);
    expect(information).toMatchObject({ id: "nosa-local", name: "Nosa", capabilities: { toolCalling: true } });
  });
});
