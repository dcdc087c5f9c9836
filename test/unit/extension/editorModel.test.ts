/** Our model as the editor's inline chat and its writer of commit messages use it: by the messages that these send. */
import * as vscode from "vscode";
import type { LanguageModelChatRequestMessage, LanguageModelResponsePart } from "vscode";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { LanguageModel } from "../../../extension/languageModel";
import { contextStatus, engineStatus } from "../../support/engineStatus";
import { chatResult, ScriptedEngine } from "../../support/scriptedEngine";

const folder = { name: "shop", uri: vscode.Uri.file("/code/shop"), index: 0 };
const log = { info: () => undefined, debug: () => undefined } as unknown as vscode.LogOutputChannel;

/** An engine with such a status. */
class Engine extends ScriptedEngine {
  override readonly status;

  constructor(contexts: readonly ReturnType<typeof contextStatus>[]) {
    super();
    this.status = engineStatus({ contexts });
  }
}

const message = (role: number, text: string): LanguageModelChatRequestMessage => ({
  role,
  content: [new vscode.LanguageModelTextPart(text)],
  name: undefined,
});
const system = 3;
const user = 1;

const inlineChat = [
  message(system, "You are an AI programming assistant. The user has a file open and a selection in it."),
  message(user, "This is the content of src/fees.ts:\n<file>export const fee = 2;</file>"),
  message(user, "<prompt>add a comment</prompt>"),
];
/** Inline chat has its edits made by one tool. */
const replace = {
  name: "replace_string_in_file",
  description: "Replaces text in a file",
  inputSchema: { type: "object", required: ["oldString"], properties: { oldString: { type: "string" } } },
};
const commitMessage = [
  message(system, "Write one concise commit message for the change."),
  message(user, "# CODE CHANGES:\n```diff\n-export const fee = 2;\n+export const fee = 3;\n```"),
];

function setUp(engine: ScriptedEngine) {
  const model = new LanguageModel(engine, log);
  const parts: LanguageModelResponsePart[] = [];
  const source = new vscode.CancellationTokenSource();
  const ask = (messages: readonly LanguageModelChatRequestMessage[], options: object = {}): Promise<void> =>
    model.provideLanguageModelChatResponse(
      model.provideLanguageModelChatInformation({ silent: true }, source.token)[0] as never,
      messages,
      { toolMode: vscode.LanguageModelChatToolMode.Auto, ...options },
      { report: (part) => parts.push(part) },
      source.token,
    );
  return { ask, parts, source };
}

beforeEach(() => {
  vi.spyOn(vscode.workspace, "workspaceFolders", "get").mockReturnValue([folder]);
  Object.assign(vscode.lm, { registerLanguageModelChatProvider: () => ({ dispose: () => undefined }) });
});

afterEach(() => {
  vi.restoreAllMocks();
  Reflect.deleteProperty(vscode.lm, "registerLanguageModelChatProvider");
});

describe("the editor's own requests to our model", () => {
  it.each([
    ["inline chat", inlineChat],
    ["a commit message", commitMessage],
  ])(
    "%s: behind the repository, the editor's words as the system's, the answer piece by piece",
    async (_, messages) => {
      const engine = new Engine([contextStatus()]);
      const { ask, parts } = setUp(engine);
      const answering = ask(messages);
      await vi.waitFor(() => expect(engine.chats).toHaveLength(1));
      expect(engine.chats[0]?.params.root).toBe("/code/shop");
      expect(engine.chats[0]?.params.messages.map(({ role }) => role)).toEqual([
        "system",
        ...messages.slice(1).map(() => "user"),
      ]);
      expect(engine.chats[0]?.params.messages.at(-1)?.content).toContain(
        messages === inlineChat ? "add a comment" : "fee = 3",
      );
      for (const text of ["Raise ", "the fee"]) engine.chats[0]?.onDelta({ kind: "text", text });
      engine.chats[0]?.resolve(chatResult("Raise the fee"));
      await answering;
      expect(parts).toEqual([new vscode.LanguageModelTextPart("Raise "), new vscode.LanguageModelTextPart("the fee")]);
    },
  );

  it("have an edit made by the tool that inline chat brings", async () => {
    const engine = new Engine([contextStatus()]);
    const { ask, parts } = setUp(engine);
    const answering = ask(inlineChat, { tools: [replace] });
    await vi.waitFor(() => expect(engine.chats).toHaveLength(1));
    expect(engine.chats[0]?.params.messages[0]).toMatchObject({ role: "system" });
    expect(engine.chats[0]?.params.messages[0]?.content).toContain(replace.name);
    const text = `<tool_call>{"name":"${replace.name}","arguments":{"oldString":"= 2"}}</tool_call>`;
    engine.chats[0]?.onDelta({ kind: "text", text });
    engine.chats[0]?.resolve(chatResult(text));
    await answering;
    expect(parts).toMatchObject([{ name: replace.name, input: { oldString: "= 2" } }]);
  });

  it("are answered where no repository was read, without one", async () => {
    const engine = new Engine([contextStatus({ root: "/code/other" })]);
    const { ask } = setUp(engine);
    const answering = ask(commitMessage);
    await vi.waitFor(() => expect(engine.chats).toHaveLength(1));
    expect(engine.chats[0]?.params.root).toBe("");
    engine.chats[0]?.resolve(chatResult("x"));
    await answering;
  });

  it("end quietly when the user stops them, and say why when they fail", async () => {
    const engine = new Engine([contextStatus()]);
    const stopped = setUp(engine);
    const answering = stopped.ask(inlineChat);
    await vi.waitFor(() => expect(engine.chats).toHaveLength(1));
    stopped.source.cancel();
    await expect(answering).resolves.toBeUndefined();
    const failed = setUp(engine).ask(inlineChat);
    await vi.waitFor(() => expect(engine.chats).toHaveLength(2));
    engine.chats[1]?.reject(new Error("The disk is full."));
    await expect(failed).rejects.toThrow("The disk is full.");
  });
});
