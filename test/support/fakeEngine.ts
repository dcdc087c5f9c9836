/**
 * An engine with a script in place of a model: the real lock, socket and messages, made-up answers. For work on the
 * editor side, and for its tests, where what the engine says must be known beforehand.
 */

import { appendFileSync, existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import type { Socket } from "node:net";
import * as path from "node:path";
import {
  CancellationToken,
  createMessageConnection,
  ProgressType,
  ResponseError,
  SocketMessageReader,
  SocketMessageWriter,
  type Disposable,
  type MessageConnection,
} from "vscode-jsonrpc/node";
import { EngineLock } from "../../engine/lock";
import { dataFolder, dataPaths } from "../../engine/paths";
import {
  engineErrorCode,
  type Activity,
  type ChatDelta,
  type ChatParams,
  type ChatResult,
  type ClientHello,
  type ContextFile,
  type EngineStatus,
  type ErrorKind,
  type IndexParams,
  type IndexSummary,
  type ModelEntry,
} from "../../engine/protocol";
import { engineVersion } from "../../engine/version";

const requestCancelled = -32800;
const charactersPerToken = 4;
const chatProgress = new ProgressType<ChatDelta>();

const model: ModelEntry = {
  id: "qwen2.5-coder-0.5b",
  name: "Qwen2.5-Coder 0.5B",
  licence: "Apache-2.0",
  bytes: 491_400_000,
  onDisk: false,
  fitsMachine: true,
  recommended: true,
};
const largeModel: ModelEntry = {
  ...model,
  id: "qwen2.5-coder-1.5b",
  name: "Qwen2.5-Coder 1.5B",
  bytes: 1_117_000_000,
  recommended: false,
};

export interface FakeEngineOptions {
  /** Milliseconds of one step of anything that takes time. */
  readonly stepMs: number;
  readonly modelOnDisk: boolean;
  /** Each request that asks for something is written there, one JSON object a line; "" for nowhere. */
  readonly record: string;
  /** While this file is there, what is read, answered or fetched stays in its middle; "" for none. */
  readonly hold: string;
}

/** Owns the lock, the connections and what was "read". */
export class FakeEngine {
  readonly #options: FakeEngineOptions;
  readonly #connections = new Set<MessageConnection>();
  readonly #contexts = new Map<string, readonly ContextFile[]>();
  #lock: EngineLock | undefined;
  #model: ModelEntry;
  #largeModel: ModelEntry = largeModel;
  #activity: Activity = { kind: "idle" };

  constructor(options: FakeEngineOptions) {
    this.#options = options;
    this.#model = { ...model, onDisk: options.modelOnDisk };
  }

  async start(env: NodeJS.ProcessEnv): Promise<void> {
    const paths = dataPaths(dataFolder(env));
    this.#lock = await EngineLock.take(paths, engineVersion, (socket) => this.#accept(socket));
  }

  async stop(): Promise<void> {
    for (const connection of this.#connections) connection.end();
    await this.#lock?.release();
  }

  #accept(socket: Socket): void {
    const connection = createMessageConnection(new SocketMessageReader(socket), new SocketMessageWriter(socket));
    this.#connections.add(connection);
    connection.onClose(() => this.#connections.delete(connection));
    connection.onError(() => undefined);
    this.#answer(connection);
    connection.listen();
  }

  #answer(connection: MessageConnection): void {
    const on = <P>(method: string, handle: (params: P, token: CancellationToken) => unknown): Disposable =>
      connection.onRequest(method, (...received: unknown[]) => {
        // One object and the token: a client that sends more would break the real engine.
        const [params, token] = received;
        if (received.length !== 2 || !CancellationToken.is(token))
          throw failure("badRequest", `${method}: one object.`);
        if (this.#options.record !== "")
          appendFileSync(this.#options.record, `${JSON.stringify({ method, params })}\n`);
        return handle(params as P, token);
      });
    on<{ initializationOptions: ClientHello }>("initialize", ({ initializationOptions }) => {
      if (initializationOptions.token !== this.#lock?.token) throw failure("forbidden", "The token is wrong.");
      return { capabilities: { textDocumentSync: 2, inlineCompletionProvider: true } };
    });
    connection.onRequest("shutdown", () => null);
    on("nosa/pins", () => ({}));
    on("nosa/status", () => this.#status());
    on("nosa/configure", () => ({}));
    on("nosa/models", () => [this.#model, this.#largeModel]);
    on<{ model: string }>("nosa/download", ({ model: id }, token) => this.#download(id, token));
    on<{ model: string }>("nosa/deleteModel", ({ model: id }) => this.#deleteModel(id));
    on<IndexParams>("nosa/index", (params, token) => this.#index(params, token));
    on<{ root: string }>("nosa/context", ({ root }) => this.#context(root));
    on<{ root: string }>("nosa/forget", ({ root }) => this.#forget(root));
    on<ChatParams>("nosa/chat", (params, token) => this.#chat(connection, params, token));
    on("nosa/drain", async () => {
      setTimeout(() => process.exit(0), 50);
      await this.#lock?.release();
      return {};
    });
    on<CompletionParams>("textDocument/inlineCompletion", async ({ position, context }, token) => {
      await this.#step(token, 5);
      const range = emptyRange(position);
      const likeliest = { insertText: " this.items.get(key) ?? fallback;", range };
      return context.triggerKind === invoked
        ? [likeliest, { insertText: " this.items.get(key);", range }]
        : [likeliest];
    });
  }

  #status(): EngineStatus {
    const contexts = [...this.#contexts].map(([root, files]) => ({
      root,
      files: files.length,
      tokens: tokensOf(files),
      complete: true,
      attendedBlocks: Math.min(64, Math.ceil(tokensOf(files) / 64)),
      totalBlocks: Math.ceil(tokensOf(files) / 64),
      policy: "nosa" as const,
      blocksRead: 96,
      selection: "adapter" as const,
    }));
    return {
      engineVersion,
      model: this.#model.onDisk ? { id: model.id, name: model.name, loaded: true } : null,
      device: this.#model.onDisk ? "CPU AVX-512 VNNI" : "",
      contexts,
      activity: this.#activity,
      clients: this.#connections.size,
      kvBytes: contexts.reduce((sum, context) => sum + context.tokens * 12_288, 0),
      memory: { bytes: 61e6, bytesMax: 2e9, diskBytes: 152e6, diskBytesMax: 20e9, diskBytesRead: 4e6 },
      problem: "",
    };
  }

  #show(activity: Activity): void {
    this.#activity = activity;
    this.#tell("nosa/statusChanged", this.#status());
  }

  #tell(method: string, params: unknown): void {
    for (const connection of this.#connections) void connection.sendNotification(method, params);
  }

  async #download(id: string, token: CancellationToken): Promise<ModelEntry> {
    const isLarge = id === largeModel.id;
    const entry = isLarge ? this.#largeModel : this.#model;
    const keep = (next: ModelEntry): void => {
      if (isLarge) this.#largeModel = next;
      else this.#model = next;
    };
    const steps = isLarge ? 400 : 30;
    const first = Math.round((steps * (entry.bytesArrived ?? 0)) / entry.bytes);
    try {
      for (let step = first; step <= steps && !entry.onDisk; step += 1) {
        keep({ ...entry, bytesArrived: (entry.bytes * step) / steps });
        await this.#step(token);
        this.#show({ kind: "downloading", percent: Math.round((100 * step) / steps) });
        this.#tell("nosa/downloadProgress", {
          model: id,
          stage: step === steps ? "verifying" : "fetching",
          source: "hub",
          bytesDone: (entry.bytes * step) / steps,
          bytesTotal: entry.bytes,
        });
        if (step * 2 > steps) await this.#held(token);
      }
      keep({ ...entry, bytesArrived: 0, onDisk: true });
    } finally {
      this.#show({ kind: "idle" });
    }
    return { ...entry, onDisk: true };
  }

  #deleteModel(id: string): object {
    const entry = id === largeModel.id ? this.#largeModel : this.#model;
    if (id === largeModel.id) this.#largeModel = largeModel;
    else this.#model = { ...model, onDisk: false };
    return { bytesFreed: entry.onDisk ? entry.bytes : (entry.bytesArrived ?? 0) };
  }

  async #index({ root }: IndexParams, token: CancellationToken): Promise<IndexSummary> {
    if (!this.#model.onDisk) throw failure("modelMissing", "There is no model on this machine yet.");
    const startedAtMs = Date.now();
    const files = filesUnder(root);
    if (files.length === 0) throw failure("repositoryEmpty", `There is nothing to read in ${root}.`);
    const steps = 40;
    const tokensTotal = tokensOf(files);
    try {
      for (let step = 0; step <= steps; step += 1) {
        await this.#step(token, 3);
        if (step * 2 > steps) await this.#held(token);
        const share = step / steps;
        const secondsLeft = (3 * (steps - step) * this.#options.stepMs) / 1000;
        const tokensPerSecond = 351;
        this.#tell("nosa/indexProgress", {
          root,
          stage: step === 0 ? "scanning" : "reading",
          filesDone: Math.floor(files.length * share),
          filesTotal: files.length,
          tokensDone: Math.floor(tokensTotal * share),
          tokensTotal,
          tokensPerSecond,
          secondsLeft: step === 0 ? -1 : secondsLeft,
          path: files[0]?.path ?? "",
        });
        this.#show({ kind: "indexing", percent: Math.floor(100 * share), tokensPerSecond, secondsLeft });
      }
      this.#contexts.set(root, files);
    } finally {
      this.#show({ kind: "idle" });
    }
    const seconds = (Date.now() - startedAtMs) / 1000;
    return {
      root,
      files: files.length,
      tokens: tokensTotal,
      tokensRead: tokensTotal,
      leftOut: 2,
      seconds,
      complete: true,
    };
  }

  #context(root: string): object {
    const files = this.#contexts.get(root);
    if (files === undefined) throw failure("notIndexed", "Nosa has not read this repository yet.");
    const leftOut: ContextFile[] = [
      { path: ".env", tokens: 0, state: { kind: "leftOut", reason: "secret" } },
      { path: "assets/logo.png", tokens: 0, state: { kind: "leftOut", reason: "binary" } },
    ];
    const tokens = tokensOf(files);
    return {
      root,
      files: [...files, ...leftOut],
      tokens,
      bytesInMemory: tokens * 12_288,
      bytesOnDisk: tokens * 12_288,
    };
  }

  #forget(root: string): object {
    const bytesFreed = tokensOf(this.#contexts.get(root) ?? []) * 12_288;
    this.#contexts.delete(root);
    this.#show({ kind: "idle" });
    return { bytesFreed };
  }

  async #chat(connection: MessageConnection, params: ChatParams, token: CancellationToken): Promise<ChatResult> {
    if (!this.#model.onDisk) throw failure("modelMissing", "There is no model on this machine yet.");
    const files = this.#contexts.get(params.root);
    if (params.root !== "" && files === undefined)
      throw failure("notIndexed", "Nosa has not read this repository yet.");
    const send = (delta: ChatDelta): void => {
      if (params.partialResultToken !== undefined)
        void connection.sendProgress(chatProgress, params.partialResultToken, delta);
    };
    this.#show({ kind: "answering" });
    let text = "";
    try {
      send({ kind: "stage", stage: "restoring" });
      await this.#step(token, 6);
      send({ kind: "stage", stage: "reading" });
      await this.#step(token, 6);
      const whole = answerTo(params, files ?? []);
      for (const piece of whole.match(/\S+\s*/g) ?? []) {
        await this.#step(token, 0.4);
        if (text.length * 2 > whole.length) await this.#held(token);
        text += piece;
        send({ kind: "text", text: piece });
      }
    } finally {
      this.#show({ kind: "idle" });
    }
    const references = referencesTo(files ?? []);
    const attention = attentionTo(files ?? []);
    return { text, finish: "stop", references, attention, usage: usageOf(files ?? []) };
  }

  /** Waits in the middle of something for as long as it is to be looked at there. */
  async #held(token: CancellationToken): Promise<void> {
    while (this.#options.hold !== "" && existsSync(this.#options.hold)) await this.#step(token);
  }

  /** One step of work; a cancelled request ends here. */
  async #step(token: CancellationToken, steps = 1): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, steps * this.#options.stepMs));
    if (token.isCancellationRequested) throw new ResponseError(requestCancelled, "cancelled");
  }
}

/** By the editor's command rather than by typing, as the protocol numbers it. */
const invoked = 1;

interface CompletionParams {
  readonly context: { readonly triggerKind: number };
  readonly position: { readonly line: number; readonly character: number };
}

function emptyRange(position: CompletionParams["position"]): object {
  return { start: position, end: position };
}

function failure(kind: ErrorKind, message: string): ResponseError<object> {
  return new ResponseError(engineErrorCode, message, { kind });
}

function tokensOf(files: readonly ContextFile[]): number {
  return files.reduce((sum, file) => sum + file.tokens, 0);
}

function filesUnder(root: string): readonly ContextFile[] {
  const names = readdirSync(root, { recursive: true, encoding: "utf8" });
  const files = names.filter((name) => !name.startsWith(".git") && statSync(path.join(root, name)).isFile());
  return files.map((name): ContextFile => {
    const tokens = Math.ceil(readFileSync(path.join(root, name)).length / charactersPerToken);
    return { path: name.split(path.sep).join("/"), tokens, state: { kind: "fresh" } };
  });
}

/** Code that takes the place of what was asked about, where that is known; else something of everything. */
function answerTo({ messages }: ChatParams, files: readonly ContextFile[]): string {
  const question = messages.at(-1)?.content ?? "";
  // Asked with tools: first a call that lacks its argument, then, told so, a right one.
  if (messages.some(({ role, content }) => role === "system" && content.includes("<tools>"))) {
    const input = question.startsWith("That call was not made") ? { path: "src/fees.ts" } : { paths: [] };
    return `I look.\n<tool_call>\n${JSON.stringify({ name: "read", arguments: input })}\n</tool_call>`;
  }
  if (question.startsWith("Write a documentation comment")) {
    return [
      "```ts",
      '/** "3.75" for 375 cents; whole units stand before the point. */',
      "export function formatCents(cents: number): string {",
      '  return `${Math.floor(cents / 100)}.${String(cents % 100).padStart(2, "0")}`;',
      "}",
      "```",
    ].join("\n");
  }
  if (question.startsWith("Write the commit message")) {
    return "```\nAsk for a review of the settings\n\nNobody had looked at them.\n```";
  }
  if (question.startsWith("Write tests")) {
    return '```ts\nimport { formatCents } from "../src/fees.js";\n\ntest("cents", () => formatCents(375));\n```';
  }
  const [first, second] = files.map((file) => file.path);
  return [
    `The work begins in \`${first ?? "nowhere"}\` and goes on in \`${second ?? "nowhere"}\`:`,
    "1. **Requests** come in and are checked against the schema.\n2. The *store* keeps one entry for each key.",
    "```ts\nexport function find(key: string): Entry | undefined {\n  return entries.get(key); // undefined when it is absent\n}\n```",
    "| part | owner |\n|---|---|\n| entries | the store |\n| log | the server |",
    "> Nothing is written before the check has passed.",
    "See [the manual](https://example.org/manual) for more.",
  ].join("\n\n");
}

function referencesTo(files: readonly ContextFile[]): ChatResult["references"] {
  return files.slice(0, 4).map((file, index) => ({
    path: file.path,
    startLine: 1 + index * 3,
    endLine: index === 2 ? 7 : 9 + index * 5,
    share: 0.46 / (index + 1),
  }));
}

/** Falls off from file to file, and leaves the last third dark. */
function attentionTo(files: readonly ContextFile[]): NonNullable<ChatResult["attention"]> {
  return files.slice(0, Math.ceil((2 * files.length) / 3)).map(({ path: file, tokens }, index) => ({
    path: file,
    startLine: 1 + (index % 7),
    endLine: 1 + (index % 7) + Math.min(24, Math.ceil(tokens / 20)),
    share: 0.3 / (1 + ((index * 5) % Math.max(1, files.length))),
  }));
}

function usageOf(files: readonly ContextFile[]): ChatResult["usage"] {
  const totalBlocks = Math.ceil(tokensOf(files) / 64);
  return {
    contextTokens: tokensOf(files),
    promptTokens: 38,
    answerTokens: 112,
    attendedBlocks: Math.min(64, totalBlocks),
    totalBlocks,
    policy: "nosa",
    blocksRead: 96,
    millis: { restore: 40, prefill: 310, firstToken: 620, decode: 3500 },
  };
}
