/** The whole engine in this process, on a real socket, with the copying model in place of a real one; and LSP clients. */

import * as net from "node:net";
import { pathToFileURL } from "node:url";
import {
  CancellationToken,
  createProtocolConnection,
  ProgressType,
  SocketMessageReader,
  SocketMessageWriter,
  type ProtocolConnection,
} from "vscode-languageserver-protocol/node";
import { onTestFinished } from "vitest";
import { defaultSettings } from "../../engine/config";
import { memoryBudget, memoryPlan } from "../../engine/contexts/budgets";
import { type ContextStore } from "../../engine/contexts/store";
import { Engine } from "../../engine/engine";
import { EngineError } from "../../engine/errors";
import { EngineLock } from "../../engine/lock";
import { silentLog } from "../../engine/log";
import { dataPaths } from "../../engine/paths";
import type { ResolvedModel } from "../../engine/models/registry";
import type { CompletionOrder } from "../../engine/native/addon";
import {
  protocolVersion,
  type ChatDelta,
  type ChatParams,
  type ChatResult,
  type ClientHello,
  type CompletionStats,
  type EngineSettings,
  type Notifications,
  type Requests,
} from "../../engine/protocol";
import { Server } from "../../engine/server";
import { Session } from "../../engine/sessions/session";
import type { ModelChoice } from "../../engine/sessions/sessions";
import { CopyModel, Workshop } from "./copyModel";
import { copyText } from "./copyText";
import { temporaryFolder } from "./folders";

export interface HarnessOptions {
  /** A data folder of an earlier engine. */
  readonly folder?: string;
  readonly segmentTokensMax?: number;
  readonly idleExitMs?: number;
  /** What a prompt of the copying model shows first; the prefix when absent. */
  readonly completionOrder?: CompletionOrder;
  /** Another model than the copying one, and how it is opened. */
  readonly resolved?: ResolvedModel;
  readonly openSession?: (resolved: ResolvedModel, settings: ModelChoice, store: ContextStore) => Promise<Session>;
  /** Thrown when a model is wanted. */
  readonly modelFailure?: EngineError;
}

const machine = { memoryBytes: 16e9 };

export class EngineHarness {
  readonly folder: string;
  readonly workshop: Workshop;
  readonly engine: Engine;
  readonly server: Server;
  readonly lock: EngineLock;
  abandoned = false;
  readonly #clients: EngineTestClient[] = [];

  private constructor(folder: string, workshop: Workshop, engine: Engine, server: Server, lock: EngineLock) {
    this.folder = folder;
    this.workshop = workshop;
    this.engine = engine;
    this.server = server;
    this.lock = lock;
  }

  static async start(options: HarnessOptions = {}): Promise<EngineHarness> {
    const folder = options.folder ?? temporaryFolder();
    const paths = dataPaths(folder);
    const workshop = new Workshop();
    const segmentTokensMax = options.segmentTokensMax ?? 4_096;
    const resolved = options.resolved ?? {
      id: "copy",
      name: "Copy",
      path: "/models/copy.gguf",
      segmentTokensMax,
      sha256: "",
    };
    const engine = await Engine.create({
      paths,
      version: "1.0.0",
      log: silentLog,
      openFiles: () => server.openFiles(),
      download: () => Promise.reject(new EngineError("downloadFailed", "There is no network in this test.")),
      registry: {
        entries: async () => [],
        knownId: (wanted) => (wanted === "copy" || wanted === "" ? "copy" : undefined),
        delete: async () => 0,
        resolve: async () => {
          if (options.modelFailure !== undefined) throw options.modelFailure;
          return resolved;
        },
      },
      openSession: async (chosen, settings, store) => {
        if (options.openSession !== undefined) return options.openSession(chosen, settings, store);
        const model = new CopyModel(workshop);
        const plan = memoryPlan(memoryBudget(settings, machine), await store.limit(settings), model.info);
        return new Session({
          resolved: chosen,
          model,
          text: copyText(options.completionOrder),
          plan,
          deviceNote: "",
          store,
          log: silentLog,
        });
      },
    });
    const early: net.Socket[] = [];
    const lock = await EngineLock.take(paths, "1.0.0", (socket) =>
      harness === undefined ? early.push(socket) : server.accept(socket),
    );
    if (lock === undefined) throw new Error("Another engine runs in the test's own folder");
    const server: Server = new Server({
      token: lock.token,
      version: "1.0.0",
      log: silentLog,
      engine: Promise.resolve(engine),
      idleExitMs: options.idleExitMs ?? 60_000,
      onAbandoned: () => {
        if (harness !== undefined) harness.abandoned = true;
      },
      onDrain: () => engine.finish(),
    });
    const harness: EngineHarness | undefined = new EngineHarness(folder, workshop, engine, server, lock);
    for (const socket of early) server.accept(socket);
    onTestFinished(() => harness.stop());
    return harness;
  }

  async connect(
    settings: Partial<EngineSettings> = {},
    hello: Partial<ClientHello> = {},
    folders: readonly string[] = [],
  ): Promise<EngineTestClient> {
    const client = await EngineTestClient.open(dataPaths(this.folder).socket);
    this.#clients.push(client);
    await client.introduce(
      {
        protocolVersion,
        token: this.lock.token,
        client: "test",
        settings: { ...defaultSettings, ...settings },
        ...hello,
      },
      folders,
    );
    return client;
  }

  #stopped: Promise<void> | undefined;

  stop(): Promise<void> {
    this.#stopped ??= (async () => {
      for (const client of this.#clients) client.dispose();
      await this.lock.release();
      this.server.dispose();
      await this.engine.dispose();
    })();
    return this.#stopped;
  }
}

/** A real LSP client on the engine's socket. */
export class EngineTestClient {
  readonly connection: ProtocolConnection;
  readonly socket: net.Socket;
  #tokens = 0;

  private constructor(socket: net.Socket) {
    this.socket = socket;
    this.connection = createProtocolConnection(new SocketMessageReader(socket), new SocketMessageWriter(socket));
    this.connection.onError(() => undefined);
    this.connection.listen();
  }

  static over(socket: net.Socket): EngineTestClient {
    return new EngineTestClient(socket);
  }

  static open(address: string): Promise<EngineTestClient> {
    return new Promise((resolve, reject) => {
      const socket = net.connect(address);
      socket.once("connect", () => resolve(new EngineTestClient(socket)));
      socket.once("error", reject);
    });
  }

  async introduce(hello: unknown, folders: readonly string[] = []): Promise<unknown> {
    const result = await this.connection.sendRequest("initialize", {
      processId: process.pid,
      rootUri: null,
      capabilities: {},
      workspaceFolders: folders.map((folder) => ({ uri: pathToFileURL(folder).href, name: folder })),
      initializationOptions: hello,
    });
    await this.connection.sendNotification("initialized", {});
    return result;
  }

  request<M extends keyof Requests>(
    method: M,
    params: Requests[M][0],
    token = CancellationToken.None,
  ): Promise<Requests[M][1]> {
    return this.connection.sendRequest<Requests[M][1]>(method, params, token);
  }

  on<M extends keyof Notifications>(method: M, listener: (params: Notifications[M]) => void): void {
    this.connection.onNotification(method, listener);
  }

  index(root: string): Promise<Requests["nosa/index"][1]> {
    return this.request("nosa/index", { root, editorExcludes: {} });
  }

  async ask(
    root: string,
    question: string,
    more: Partial<ChatParams> = {},
    token = CancellationToken.None,
  ): Promise<ChatResult & { readonly deltas: readonly ChatDelta[] }> {
    const deltas: ChatDelta[] = [];
    const partialResultToken = `t${++this.#tokens}`;
    const listening = this.connection.onProgress(new ProgressType<ChatDelta>(), partialResultToken, (delta) => {
      deltas.push(delta);
    });
    const messages = [{ role: "user", content: question }] as const;
    const params = { root, messages, tokensMax: 200, temperature: 0, seed: 0, partialResultToken, ...more };
    try {
      return { ...(await this.request("nosa/chat", params, token)), deltas };
    } finally {
      listening.dispose();
    }
  }

  async openDocument(file: string, text: string, languageId = "typescript"): Promise<void> {
    const textDocument = { uri: pathToFileURL(file).href, languageId, version: 1, text };
    await this.connection.sendNotification("textDocument/didOpen", { textDocument });
  }

  /** Inserts at a place of an open document. */
  async type(file: string, version: number, line: number, character: number, text: string): Promise<void> {
    await this.connection.sendNotification("textDocument/didChange", {
      textDocument: { uri: pathToFileURL(file).href, version },
      contentChanges: [{ range: { start: { line, character }, end: { line, character } }, text }],
    });
  }

  complete(
    file: string,
    line: number,
    character: number,
    options: {
      readonly automatic?: boolean;
      readonly selected?: { readonly text: string; readonly from: number };
    } = {},
    token = CancellationToken.None,
  ): Promise<readonly { readonly insertText: string; readonly data: CompletionStats; readonly range: object }[]> {
    const { selected } = options;
    const range = { start: { line, character: selected?.from ?? character }, end: { line, character } };
    return this.connection.sendRequest(
      "textDocument/inlineCompletion",
      {
        textDocument: { uri: pathToFileURL(file).href },
        position: { line, character },
        context: {
          triggerKind: options.automatic === false ? 1 : 2,
          ...(selected === undefined ? {} : { selectedCompletionInfo: { text: selected.text, range } }),
        },
      },
      token,
    );
  }

  dispose(): void {
    this.connection.dispose();
    this.socket.destroy();
  }
}
