import type { LanguageModelChatRequestMessage } from "vscode";
import { LanguageModelTextPart } from "vscode";
import { describe, expect, it } from "vitest";
import { modelInformation, plainMessage } from "../../../extension/languageModel";

function message(role: number, ...texts: readonly string[]): LanguageModelChatRequestMessage {
  const content = [...texts.map((text) => new LanguageModelTextPart(text)), { mimeType: "image/png" }];
  return { role, content, name: undefined } as unknown as LanguageModelChatRequestMessage;
}

describe("the language model", () => {
  it("takes the editor's third role for the system, not for an assistant", () => {
    expect(plainMessage(message(3, "Be brief."))).toEqual({ role: "system", content: "Be brief." });
    expect(plainMessage(message(1, "Hi ", "there"))).toEqual({ role: "user", content: "Hi there" });
    expect(plainMessage(message(2, "Hello"))).toEqual({ role: "assistant", content: "Hello" });
  });

  it("is listed before the engine runs, and promises no tools", () => {
    const information = modelInformation(null);
    expect(information).toMatchObject({ id: "nosa-local", name: "Nosa", capabilities: { toolCalling: false } });
  });
});
