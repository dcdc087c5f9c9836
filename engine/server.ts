/**
 * The only place that knows LSP: every client's connection, and one short handler for each message, which parses,
 * calls a feature and replies. Handlers are wrapped once, here.
 */

import { timingSafeEqual } from "node:crypto";
import type { Socket } from "node:net";
import { setMaxListeners } from "node:events";
import * as path from "node:path";
import type * as z from "zod/mini";
import {
  createConnection,
  LSPErrorCodes,
  ResponseError,
  TextDocumentSyncKind,
  type CancellationToken,
  type Connection,
  type InitializeParams,
  type InitializeResult,
  type InlineCompletionItem,
  type InlineCompletionParams,
  type Range,
} from "vscode-languageserver";
import { createProtocolConnection, SocketMessageReader, SocketMessageWriter } from "vscode-languageserver/node";
import type { CompletionRequest } from "./completions/completions";
import { limits, parseHello, parseSettings } from "./config";
import { Roots } from "./contexts/roots";
import { DeltaStream } from "./deltaStream";
import { Documents, filePath, pathWithin } from "./documents/documents";
import type { Engine } from "./engine";
import { Cancelled, EngineError, toEngineError } from "./errors";
import type { Log } from "./log";
import {
  engineErrorCode,
  type ClientHello,
  type DownloadProgress,
  type EngineSettings,
  type ErrorData,
  type Place,
  type Requests,
} from "./protocol";
import { parseParams, schemas } from "./requests";

export interface ServerOptions {
  readonly token: string;
  readonly version: string;
  readonly log: Log;
  readonly engine: Promise<Engine>;
  /** How long nobody may be connected before `onAbandoned`. */
  readonly idleExitMs: number;
  readonly onAbandoned: () => void;
  /** Somebody asked the engine to leave; resolves when all that runs is finished. */
  readonly onDrain: () => Promise<void>;
}

/** Owns the clients. */
export class Server {
  readonly #options: ServerOptions;
  readonly #clients = new Set<Client>();
  #idleTimer: NodeJS.Timeout | undefined;
  #draining = false;

  constructor(options: ServerOptions) {
    this.#options = options;
    this.#waitForClients();
    options.engine.then(
      (engine) => engine.changed.on(() => this.#broadcastStatus()),
      () => undefined,
    );
  }

  get draining(): boolean {
    return this.#draining;
  }

  get clients(): number {
    return this.#clients.size;
  }

  accept(socket: Socket): void {
    if (this.#clients.size >= limits.clientsMax) {
      this.#options.log.warn("Too many clients: one was refused");
      socket.destroy();
      return;
    }
    clearTimeout(this.#idleTimer);
    const client = new Client(socket, this.#options, this);
    this.#clients.add(client);
    socket.once("close", () => {
      this.#clients.delete(client);
      client.dispose();
      this.#broadcastStatus();
      if (this.#clients.size === 0) this.#waitForClients();
    });
  }

  openFiles(): readonly string[] {
    return [...this.#clients].flatMap((client) => client.documents.paths());
  }

  /** Refuses everything new from here on. */
  drain(): Promise<void> {
    this.#draining = true;
    return this.#options.onDrain();
  }

  dispose(): void {
    clearTimeout(this.#idleTimer);
    for (const client of this.#clients) client.close();
  }

  #waitForClients(): void {
    clearTimeout(this.#idleTimer);
    this.#idleTimer = setTimeout(this.#options.onAbandoned, this.#options.idleExitMs);
  }

  #broadcastStatus(): void {
    for (const client of this.#clients) client.sendStatus();
  }
}

/** One client: its connection, its open documents, its settings, what it waits for. */
class Client {
  readonly documents = new Documents();
  readonly #socket: Socket;
  readonly #options: ServerOptions;
  readonly #server: Server;
  readonly #connection: Connection;
  /** Requests that are being answered. */
  readonly #running = new Set<AbortController>();
  #gone = false;
  #hello: ClientHello | undefined;
  #settings: EngineSettings | undefined;
  #folders: readonly string[] = [];
  #roots: Promise<readonly string[]> | undefined;
  /** By canonical root: what completions keep in sight. */
  readonly #pins = new Map<string, readonly Place[]>();

  constructor(socket: Socket, options: ServerOptions, server: Server) {
    this.#socket = socket;
    this.#options = options;
    this.#server = server;
    socket.on("error", (error) => options.log.info(`A client's connection broke: ${error.message}`));
    // The library would tell the client of its own troubles, over a connection that may be closed by then.
    const trouble = (message: string): void => options.log.info(`A client's connection: ${message}`);
    const logger = { error: trouble, warn: trouble, info: trouble, log: trouble };
    this.#connection = createConnection(
      () => createProtocolConnection(new SocketMessageReader(socket), new SocketMessageWriter(socket), logger),
      // The process is everybody's: one client's exit ends its connection only.
      { shutdownReceived: false, initialize: () => undefined, exit: () => socket.end() },
    );
    this.#register();
    this.#connection.listen();
  }

  sendStatus(): void {
    if (this.#hello === undefined) return;
    void this.#status().then(
      (status) => this.#notify("nosa/statusChanged", status),
      (error: unknown) => this.#options.log.warn("No status to tell", error),
    );
  }

  close(): void {
    this.#socket.end();
  }

  dispose(): void {
    this.#gone = true;
    for (const request of this.#running) request.abort();
    this.#connection.dispose();
  }

  #register(): void {
    const connection = this.#connection;
    connection.onInitialize((params) => this.#guarded("initialize", () => this.#initialize(params)));
    connection.onShutdown(() => undefined);
    this.#registerDocuments(connection);
    connection.languages.inlineCompletion.on(async (params, token) => this.#inlineCompletion(params, token));

    this.#on("nosa/status", schemas.nothing, () => this.#status());
    this.#on("nosa/configure", schemas.nothing, async (settings) => {
      this.#settings = parseSettings(settings);
      (await this.#options.engine).changed.fire();
      return {};
    });
    this.#on("nosa/index", schemas.index, async ({ root, editorExcludes, reread }, signal) => {
      const engine = await this.#options.engine;
      const canonical = await engine.roots.canonical(root);
      const summary = await engine.indexing.index({
        root: canonical,
        editorExcludes,
        ...(reread === undefined ? {} : { reread }),
        settings: this.#mySettings,
        signal,
        onProgress: (progress) => this.#notify("nosa/indexProgress", { root, ...progress }),
      });
      return { root, ...summary };
    });
    this.#on("nosa/context", schemas.root, async ({ root }) =>
      (await this.#options.engine).contextView(root, this.#mySettings),
    );
    this.#on("nosa/forget", schemas.root, async ({ root }) => ({
      bytesFreed: await (await this.#options.engine).forget(root),
    }));
    this.#on("nosa/chat", schemas.chat, async ({ root, partialResultToken, ...params }, signal) => {
      const engine = await this.#options.engine;
      const canonical = await engine.roots.canonical(root);
      const stream = new DeltaStream(this.#connection, partialResultToken);
      try {
        const settings = this.#mySettings;
        const result = await engine.chat.ask({
          root: canonical,
          params,
          settings,
          signal,
          onDelta: (delta) => stream.push(delta),
        });
        engine.indexing.used(canonical, settings);
        return result;
      } finally {
        await stream.flush();
      }
    });
    this.#on("nosa/pins", schemas.pins, async ({ root, pins }) => {
      const engine = await this.#options.engine;
      this.#pins.set(await engine.roots.canonicalOrGone(root), pins);
      return {};
    });
    this.#on("nosa/prepare", schemas.prepare, async ({ uri, ...position }, signal) => {
      const around = this.#around(uri, { start: position, end: position });
      if (around === undefined) return {};
      const engine = await this.#options.engine;
      const root = await this.#rootOf(engine, uri);
      const pins = this.#pins.get(root.root) ?? [];
      await engine.completions.prepare({
        ...root,
        ...around,
        pins,
        automatic: true,
        settings: this.#mySettings,
        signal,
      });
      return {};
    });
    this.#on("nosa/models", schemas.nothing, async () => (await this.#options.engine).registry.entries());
    this.#on("nosa/download", schemas.download, async ({ model }, signal) => {
      const { downloads } = await this.#options.engine;
      const onProgress = (progress: DownloadProgress): void => this.#notify("nosa/downloadProgress", progress);
      return downloads.fetch({ model, hubMirror: this.#mySettings.hubMirror, signal, onProgress });
    });
    this.#on("nosa/deleteModel", schemas.download, async ({ model }) => {
      const engine = await this.#options.engine;
      return { bytesFreed: await engine.deleteModel(model) };
    });
    this.#on("nosa/drain", schemas.nothing, async () => {
      await this.#server.drain();
      return {};
    });
  }

  #registerDocuments(connection: Connection): void {
    connection.onDidOpenTextDocument(({ textDocument: { uri, languageId, version, text } }) => {
      this.documents.open(uri, languageId, version, text);
    });
    connection.onDidChangeTextDocument(({ textDocument: { uri, version }, contentChanges }) => {
      this.documents.change(uri, version, contentChanges);
    });
    connection.onDidSaveTextDocument(({ textDocument: { uri } }) => this.#changedOnDisk([uri]));
    connection.onDidCloseTextDocument(({ textDocument: { uri } }) => {
      this.documents.close(uri);
      this.#changedOnDisk([uri]);
    });
    connection.onDidChangeWatchedFiles(({ changes }) => this.#changedOnDisk(changes.map(({ uri }) => uri)));
    connection.onNotification("workspace/didChangeWorkspaceFolders", (params: unknown) => this.#changeFolders(params));
  }

  #changedOnDisk(uris: readonly string[]): void {
    const files = uris.map(filePath).filter((file) => file !== undefined);
    if (this.#hello === undefined || files.length === 0) return;
    void this.#options.engine.then((engine) => engine.indexing.changed(files)).catch(() => undefined);
  }

  #changeFolders(params: unknown): void {
    const event = (params as { event?: { added?: { uri: string }[]; removed?: { uri: string }[] } } | null)?.event;
    const removed = new Set((event?.removed ?? []).map(({ uri }) => filePath(uri)));
    const added = (event?.added ?? []).map(({ uri }) => filePath(uri)).filter((file) => file !== undefined);
    this.#folders = [...this.#folders.filter((folder) => !removed.has(folder)), ...added];
    this.#roots = undefined;
  }

  /** One request of ours: only from a client that introduced itself, with params as its schema says. */
  #on<M extends keyof Requests, S extends z.ZodMiniType>(
    method: M,
    schema: S,
    handle: (params: z.output<S>, signal: AbortSignal) => Promise<Requests[M][1]>,
  ): void {
    this.#connection.onRequest(method, (params: unknown, token: CancellationToken) =>
      this.#guarded(method, () => {
        if (this.#hello === undefined) throw strangers();
        if (this.#server.draining && method !== "nosa/drain") throw draining();
        const parsed = parseParams(schema, method, params);
        return this.#cancellable(token, (signal) => handle(parsed, signal));
      }),
    );
  }

  /** The one wrapper: whatever goes wrong becomes an error with a kind and a sentence. */
  async #guarded<R>(method: string, work: () => Promise<R> | R): Promise<R> {
    try {
      return await work();
    } catch (error) {
      // Requests whose result can say so return a result; for the others LSP has a code.
      if (error instanceof Cancelled) throw new ResponseError<ErrorData>(LSPErrorCodes.RequestCancelled, "Cancelled");
      const failure = toEngineError(error);
      if (failure.kind === "internal") this.#options.log.error(`${method} failed`, error);
      else this.#options.log.info(`${method} failed (${failure.kind}): ${failure.message}`);
      throw new ResponseError<ErrorData>(engineErrorCode, failure.message, { kind: failure.kind });
    }
  }

  #initialize(params: InitializeParams): InitializeResult {
    const hello = parseHello(params.initializationOptions);
    if (!sameText(hello.token, this.#options.token)) {
      throw new EngineError("forbidden", "The engine did not recognise this client: reload the window.");
    }
    this.#hello = hello;
    this.#settings = hello.settings;
    const folders = params.workspaceFolders?.map(({ uri }) => filePath(uri)) ?? [];
    this.#folders = folders.filter((folder) => folder !== undefined);
    this.#options.log.info(`A ${hello.client} client connected`);
    if (hello.client === "vscode") this.#warm(hello.settings);
    return {
      serverInfo: { name: "nosa", version: this.#options.version },
      capabilities: {
        textDocumentSync: { openClose: true, change: TextDocumentSyncKind.Incremental, save: true },
        inlineCompletionProvider: {},
        workspace: { workspaceFolders: { supported: true, changeNotifications: true } },
      },
    };
  }

  #warm(settings: EngineSettings): void {
    const { engine, log } = this.#options;
    engine
      .then((built) => built.warm(this.#folders, settings))
      .catch((error: unknown) => log.info(`Nothing was loaded ahead: ${toEngineError(error).message}`));
  }

  get #mySettings(): EngineSettings {
    if (this.#settings === undefined) throw strangers();
    return this.#settings;
  }

  async #status(): Promise<Requests["nosa/status"][1]> {
    return (await this.#options.engine).status(this.#mySettings, this.#server.clients);
  }

  async #inlineCompletion(params: InlineCompletionParams, token: CancellationToken): Promise<InlineCompletionItem[]> {
    return this.#guarded("textDocument/inlineCompletion", () =>
      this.#cancellable(token, (signal) => this.#complete(params, signal)),
    );
  }

  async #complete(params: InlineCompletionParams, signal: AbortSignal): Promise<InlineCompletionItem[]> {
    if (this.#hello === undefined) throw strangers();
    const { textDocument, position, context } = params;
    const selected = context.selectedCompletionInfo;
    const range = selected?.range ?? { start: position, end: position };
    const around = this.#around(textDocument.uri, range);
    if (around === undefined || this.#server.draining) return [];
    const engine = await this.#options.engine;
    const root = await this.#rootOf(engine, textDocument.uri);
    const completions = await engine.completions.complete({
      ...root,
      ...around,
      // An entry that is selected in the editor's own list counts as typed.
      before: around.before + (selected?.text ?? ""),
      pins: this.#pins.get(root.root) ?? [],
      automatic: context.triggerKind !== invoked,
      settings: this.#mySettings,
      signal,
    });
    engine.indexing.used(root.root, this.#mySettings);
    return completions.map(({ text: offered, stats }) => ({
      insertText: (selected?.text ?? "") + offered,
      range,
      data: stats,
      // The editor's client drops `data`; the command comes through, and is run when the offer is accepted.
      command: { title: "", command: completionAcceptedCommand, arguments: [stats] },
    }));
  }

  /** What stands around a range now, as it is of this text: the next key may be here before the engine is. */
  #around(
    uri: string,
    { start, end }: Range,
  ): Pick<CompletionRequest, "uri" | "languageId" | "before" | "after"> | undefined {
    const document = this.documents.get(uri);
    if (document === undefined) return undefined;
    const text = document.getText();
    const { languageId } = document;
    return {
      uri,
      languageId,
      before: text.slice(0, document.offsetAt(start)),
      after: text.slice(document.offsetAt(end)),
    };
  }

  /** The known repository a document is in, and its path there. */
  async #rootOf(engine: Engine, uri: string): Promise<{ readonly root: string; readonly path: string }> {
    const file = filePath(uri);
    if (file === undefined) return { root: "", path: path.posix.basename(uri) };
    this.#roots ??= Promise.all(this.#folders.map((folder) => engine.roots.canonicalOrGone(folder)));
    const candidates = new Set([...(await this.#roots), ...engine.knownRoots()]);
    const indexed = engine.knownRoots().filter((root) => candidates.has(root));
    const spelledIn = indexed.find((root) => pathWithin(engine.roots.spelled(root), file) !== undefined);
    const root = Roots.deepest(indexed, file) ?? spelledIn;
    if (root === undefined) return { root: "", path: path.basename(file) };
    return {
      root,
      path: pathWithin(root, file) ?? pathWithin(engine.roots.spelled(root), file) ?? path.basename(file),
    };
  }

  #notify(method: string, params: object): void {
    if (!this.#gone) void this.#notifyNow(method, params);
  }

  async #notifyNow(method: string, params: object): Promise<void> {
    try {
      await this.#connection.sendNotification(method, params);
    } catch {
      // The client is going; it has no use for news.
    }
  }

  /** Runs `work` with a signal that is aborted when the request is cancelled, and when the client is gone. */
  async #cancellable<R>(token: CancellationToken, work: (signal: AbortSignal) => Promise<R>): Promise<R> {
    const stop = new AbortController();
    setMaxListeners(0, stop.signal);
    const listening = token.onCancellationRequested(() => stop.abort());
    if (token.isCancellationRequested) stop.abort();
    this.#running.add(stop);
    try {
      return await work(stop.signal);
    } finally {
      listening.dispose();
      this.#running.delete(stop);
    }
  }
}

/** The extension registers it; arguments: CompletionStats. */
const completionAcceptedCommand = "nosa.completionAccepted";

/** InlineCompletionTriggerKind.Invoked of LSP. */
const invoked = 1;

function strangers(): EngineError {
  return new EngineError("forbidden", "The engine only talks to clients that introduced themselves.");
}

function draining(): EngineError {
  return new EngineError("draining", "The engine is closing for a newer version: try again in a moment.");
}

function sameText(a: string, b: string): boolean {
  const left = Buffer.from(a);
  const right = Buffer.from(b);
  return left.length === right.length && timingSafeEqual(left, right);
}
