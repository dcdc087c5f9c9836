import type {
  ChatContext,
  ChatRequest,
  ChatRequestHandler,
  ChatResponseStream,
  ChatResult,
  LogOutputChannel,
} from "vscode";
import * as vscode from "vscode";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ChatParticipant } from "../../../extension/chatParticipant";
import { Attention } from "../../../extension/attention";
import { Pins } from "../../../extension/pins";
import { plainFailure } from "../../../extension/errors";
import { chatResult, ScriptedEngine } from "../../support/scriptedEngine";

const log = { error: () => undefined } as unknown as LogOutputChannel;
const folder = { name: "shop", uri: vscode.Uri.file("/code/shop"), index: 0 };

let engine: ScriptedEngine;
let handle: ChatRequestHandler;
let said: string[];
let stream: ChatResponseStream;

/** Turns as the editor hands them in; its classes cannot be made by hand in the typings. */
const asked = (prompt: string): unknown => Reflect.construct(vscode.ChatRequestTurn, [prompt]);
const answered = (metadata: object, ...texts: readonly string[]): unknown =>
  Reflect.construct(vscode.ChatResponseTurn, [
    texts.map((text) => new vscode.ChatResponseMarkdownPart(text)),
    { metadata },
  ]);

beforeEach(() => {
  engine = new ScriptedEngine();
  said = [];
  const note =
    (kind: string) =>
    (...args: readonly unknown[]): void =>
      void said.push(`${kind}: ${args.findLast((arg) => typeof arg === "string") ?? JSON.stringify(args[0])}`);
  stream = {
    markdown: note("text"),
    progress: note("progress"),
    anchor: note("anchor"),
    reference: () => undefined,
    button: note("button"),
  } as unknown as ChatResponseStream;
  vi.spyOn(vscode.chat, "createChatParticipant").mockImplementation((_id, handler) => {
    handle = handler;
    return { dispose: () => undefined } as unknown as vscode.ChatParticipant;
  });
  vi.spyOn(vscode.workspace, "workspaceFolders", "get").mockReturnValue([folder]);
  new ChatParticipant({
    engine,
    log,
    pins: new Pins({ get: () => undefined as never, update: () => Promise.resolve() }),
    attention: new Attention(),
    icon: vscode.Uri.file("/icon.png"),
  });
});

afterEach(() => vi.restoreAllMocks());

function send(
  prompt: string,
  more: { history?: readonly unknown[]; references?: readonly unknown[]; command?: string } = {},
) {
  const request = { prompt, command: more.command, references: more.references ?? [] } as unknown as ChatRequest;
  const context = { history: more.history ?? [] } as unknown as ChatContext;
  const source = new vscode.CancellationTokenSource();
  const result = Promise.resolve(handle(request, context, stream, source.token)) as Promise<ChatResult>;
  return { result, source };
}

describe("@nosa", () => {
  it("streams the answer, then names the lines it drew on", async () => {
    const { result } = send("Where?");
    await vi.waitFor(() => expect(engine.chats).toHaveLength(1));
    engine.chats[0]?.onDelta({ kind: "stage", stage: "reading" });
    engine.chats[0]?.onDelta({ kind: "text", text: "In the " });
    engine.chats[0]?.onDelta({ kind: "text", text: "store." });
    const references = [{ path: "src/store.ts", startLine: 3, endLine: 9, share: 0.4 }];
    engine.chats[0]?.resolve(chatResult("In the store.", { references }));
    expect((await result).metadata).toMatchObject({ references: ["src/store.ts:3-9"] });
    expect(said).toEqual([
      "progress: Reading the question",
      "text: In the ",
      "text: store.",
      "text: \n\nDrawn from ",
      "anchor: src/store.ts:3-9",
      "text:  ",
    ]);
    expect(engine.chats[0]?.params.root).toBe("/code/shop");
  });

  it("tells the engine what was said before, word for word as the model had it", async () => {
    const history = [
      asked("/explain"),
      answered({ asked: "Explain src/a.ts.", answered: "First answer." }, "First", " answer.", "\n\nDrawn from ", " "),
      asked("stopped"),
      answered({}, "Half of ", "it"),
      asked("without an answer"),
      answered({}),
      asked("left open"),
    ];
    const { result } = send("two", { history });
    await vi.waitFor(() => expect(engine.chats).toHaveLength(1));
    expect(engine.chats[0]?.params.messages).toEqual([
      { role: "user", content: "Explain src/a.ts." },
      { role: "assistant", content: "First answer." },
      { role: "user", content: "stopped" },
      { role: "assistant", content: "Half of it" },
      { role: "user", content: "two" },
    ]);
    engine.chats[0]?.resolve(chatResult("x"));
    await result;
  });

  it("puts attached files before the question, in the order of the text", async () => {
    vi.spyOn(vscode.workspace, "openTextDocument").mockImplementation((async (uri: vscode.Uri) => ({
      uri,
      isDirty: false,
      getText: () => `contents of ${uri.path}`,
      languageId: "typescript",
    })) as never);
    // The editor hands the last one in first.
    const references = [
      { value: vscode.Uri.file("/code/shop/b.ts") },
      { value: "words" },
      { value: vscode.Uri.file("/code/shop/a.ts") },
    ];
    const { result } = send("Compare.", { references });
    await vi.waitFor(() => expect(engine.chats).toHaveLength(1));
    const content = engine.chats[0]?.params.messages[0]?.content ?? "";
    const order = ["a.ts:\n```typescript", "b.ts:\n```typescript", "words", "Compare."].map((text) =>
      content.indexOf(text),
    );
    expect(order.every((at) => at >= 0)).toBe(true);
    expect(order).toEqual(order.toSorted((a, b) => a - b));
    engine.chats[0]?.resolve(chatResult("x"));
    await result;
  });

  it("offers the code of an answer after everything else, with where it may go", async () => {
    engine.answer = () => Promise.resolve({ files: [{ path: "src/a.ts", tokens: 3, state: { kind: "fresh" } }] });
    vi.spyOn(vscode.workspace, "openTextDocument").mockImplementation((async (uri: vscode.Uri) => ({
      uri,
      isDirty: false,
      getText: () => "",
      languageId: "typescript",
    })) as never);
    const { result } = send("src/a.ts", { command: "docs" });
    await vi.waitFor(() => expect(engine.chats).toHaveLength(1));
    expect(engine.chats[0]?.params.pins).toEqual([{ path: "src/a.ts", startLine: 0, endLine: 0 }]);
    engine.chats[0]?.resolve(chatResult("```ts\nlet a;\n```"));
    await result;
    expect(JSON.parse(said.at(-1)?.replace("button: ", "") ?? "")).toEqual({
      title: "Preview in a.ts",
      command: "nosa.previewCode",
      arguments: [{ code: "let a;", path: "", about: "file:///code/shop/src/a.ts", lines: null }],
    });
  });

  it("is silent when it is stopped", async () => {
    const { result, source } = send("Where?");
    await vi.waitFor(() => expect(engine.chats).toHaveLength(1));
    source.cancel();
    expect(await result).toEqual({});
    expect(said).toEqual([]);
  });

  it("explains a failure, with the button that helps", async () => {
    const { result } = send("Where?");
    await vi.waitFor(() => expect(engine.chats).toHaveLength(1));
    engine.chats[0]?.reject(plainFailure("notIndexed"));
    expect((await result).errorDetails?.message).toBe("Nosa has not read this repository yet.");
    expect(said).toEqual(['button: {"title":"Index Repository","command":"nosa.indexRepository"}']);
  });
});
