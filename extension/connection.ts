/**
 * One connection to the engine, with the library that speaks its protocol: a bundle of its own, so that the extension is
 * active before it is loaded. What crosses between the bundles is told apart by its fields: each has its own classes.
 */

import type { CancellationToken, Disposable, FileSystemWatcher, LogOutputChannel } from "vscode";
import {
  CloseAction,
  ErrorAction,
  InlineCompletionRequest,
  LanguageClient,
  ProgressType,
  RevealOutputChannelOn,
  StreamMessageReader,
  StreamMessageWriter,
  type LanguageClientOptions,
  type MessageSignature,
  type Middleware,
} from "vscode-languageclient/node";
import { connectToEngine, type EngineSocket } from "../engine/connect";
import { protocolVersion, type ChatDelta, type ClientHello, type EngineSettings } from "../engine/protocol";
import { documentSelector } from "./completions/where";

export interface ConnectionOptions {
  /** The engine's bundle. */
  readonly engineFile: string;
  readonly settings: () => EngineSettings;
  readonly middleware: Middleware;
  /** Files that change outside the editor's buffers. */
  readonly files: FileSystemWatcher;
  readonly log: LogOutputChannel;
  /** Gives up looking for an engine. */
  readonly signal: AbortSignal;
}

const chatProgress = new ProgressType<ChatDelta>();

/** Finds or starts the engine; throws a ConnectError. What is returned must be started, and ended. */
export async function openConnection({ signal, ...options }: ConnectionOptions): Promise<Connection> {
  const { engineFile, log } = options;
  const found = await connectToEngine({
    engineFile,
    runtime: process.execPath,
    log: (line) => log.info(line),
    signal,
  });
  return new Connection(found, options);
}

/** One connection, from hello to its loss. */
export class Connection {
  readonly client: QuietClient;
  /** Resolves when the connection is gone, whoever ended it. */
  readonly lost: Promise<void>;
  readonly #socket: EngineSocket["socket"];

  constructor(
    { socket, token }: EngineSocket,
    { settings, middleware, files, log }: Omit<ConnectionOptions, "signal">,
  ) {
    this.#socket = socket;
    const hello: ClientHello = { protocolVersion, token, client: "vscode", settings: settings() };
    this.lost = new Promise((resolve) => socket.once("close", () => resolve()));
    const options: LanguageClientOptions = {
      documentSelector: [...documentSelector],
      synchronize: { fileEvents: files },
      initializationOptions: hello,
      outputChannel: log,
      revealOutputChannelOn: RevealOutputChannelOn.Never,
      middleware,
      // Reconnecting is the owner's business: it starts the engine again where needed.
      errorHandler: {
        error: () => ({ action: ErrorAction.Continue, handled: true }),
        closed: () => ({
          action: CloseAction.DoNotRestart,
          handled: true,
          message: "The connection to the engine ended.",
        }),
      },
      initializationFailedHandler: () => false,
    };
    const transports = {
      reader: new StreamMessageReader(socket),
      writer: new StreamMessageWriter(socket),
      detached: true,
    };
    this.client = new QuietClient("nosa", "Nosa", () => Promise.resolve(transports), options);
  }

  async start(): Promise<void> {
    await this.client.start();
  }

  /** What the engine streams under the token of a chat. */
  onChat(token: string, listener: (delta: ChatDelta) => void): Disposable {
    return this.client.onProgress(chatProgress, token, listener);
  }

  /** Says goodbye and closes; the engine itself lives on for other windows. */
  async end(): Promise<void> {
    await this.client.dispose().catch(() => undefined);
    this.#socket.destroy();
  }
}

/** A language client that writes its errors to the log and opens no pop-up: nobody asked for one. */
class QuietClient extends LanguageClient {
  override error(message: string, data?: unknown): void {
    super.error(message, data, false);
  }

  override handleFailedRequest<T>(
    type: MessageSignature,
    token: CancellationToken | undefined,
    error: unknown,
    ...rest: [defaultValue: T, showNotification?: boolean, throwOnCancel?: boolean]
  ): T {
    // Ghost text is asked for with each key; the middleware tells about a failure once, not with each key.
    if (type.method === InlineCompletionRequest.method) throw error;
    return super.handleFailedRequest(type, token, error, ...rest);
  }
}
