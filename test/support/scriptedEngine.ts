import { EventEmitter } from "vscode";
import type { ChatDelta, ChatParams, ChatResult, EngineStatus, IndexProgress } from "../../engine/protocol";
import type { ConnectionState, Engine } from "../../extension/client";

/** What a chat of the scripted engine is given, and how the test answers it. */
export interface ScriptedChat {
  readonly params: ChatParams;
  readonly onDelta: (delta: ChatDelta) => void;
  readonly resolve: (result: ChatResult) => void;
  readonly reject: (error: unknown) => void;
}

/** The engine as the parts of the extension see it, with the test in its place. */
export class ScriptedEngine implements Engine {
  readonly state: ConnectionState = { kind: "connected" };
  readonly status: EngineStatus | null = null;
  readonly chats: ScriptedChat[] = [];
  readonly requests: { readonly method: string; readonly params: unknown }[] = [];
  readonly progress = new EventEmitter<IndexProgress>();
  readonly onDidChange = new EventEmitter<void>().event;
  readonly onIndexProgress = this.progress.event;
  readonly onDownloadProgress = new EventEmitter<never>().event;
  /** What every request gives. */
  answer: (method: string) => Promise<unknown> = (method) =>
    Promise.resolve(method === "nosa/context" ? { files: [] } : {});

  request: Engine["request"] = async (method, params) => {
    this.requests.push({ method, params });
    // The test says what a method gives; the compiler cannot know which.
    return (await this.answer(method)) as never;
  };

  chat: Engine["chat"] = (params, onDelta, token) =>
    new Promise((resolve, reject) => {
      this.chats.push({ params, onDelta, resolve, reject });
      token.onCancellationRequested(() => reject(Object.assign(new Error("cancelled"), { code: -32800 })));
    });

  restart(): Promise<void> {
    return Promise.resolve();
  }
}

export function chatResult(text: string, more: Partial<ChatResult> = {}): ChatResult {
  const millis = { restore: 0, prefill: 0, firstToken: 0, decode: 0 };
  const blocks = { attendedBlocks: 0, totalBlocks: 0, policy: "full", blocksRead: 0 } as const;
  const usage = { contextTokens: 0, promptTokens: 1, answerTokens: 0, ...blocks, millis };
  return { text, finish: "stop", references: [], usage, ...more };
}
