/** The terminal's connection to the engine: typed requests over the same socket as the editor's. */

import type { Socket } from "node:net";
import * as path from "node:path";
import {
  CancellationTokenSource,
  createMessageConnection,
  ProgressType,
  ResponseError,
  SocketMessageWriter,
  type MessageConnection,
} from "vscode-jsonrpc/node";
import { connectToEngine } from "../connect";
import { EngineError } from "../errors";
import {
  protocolVersion,
  type ChatDelta,
  type ClientHello,
  type EngineSettings,
  type ErrorKind,
  type Notifications,
  type Requests,
} from "../protocol";
import { messagesOf } from "../util/messagesOf";

export class TerminalClient {
  readonly #connection: MessageConnection;
  readonly #socket: Socket;
  readonly #lost: Promise<never>;
  #progressTokens = 0;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.#connection = createMessageConnection(messagesOf(socket), new SocketMessageWriter(socket));
    this.#lost = new Promise<never>((_, reject) => {
      this.#connection.onClose(() =>
        reject(
          new EngineError(
            "internal",
            "The engine went away in the middle: run the same command again, what was read is kept.",
          ),
        ),
      );
    });
    this.#lost.catch(() => undefined);
    this.#connection.onError(() => undefined);
    this.#connection.listen();
  }

  static async connect(settings: EngineSettings, signal: AbortSignal): Promise<TerminalClient> {
    const engineFile = path.join(__dirname, "engine.js");
    const { socket, token } = await connectToEngine({
      engineFile,
      runtime: process.execPath,
      log: () => undefined,
      signal,
    });
    const client = new TerminalClient(socket);
    const hello: ClientHello = { protocolVersion, token, client: "terminal", settings };
    await client.send("initialize", {
      processId: process.pid,
      rootUri: null,
      capabilities: {},
      initializationOptions: hello,
    });
    await client.#connection.sendNotification("initialized", {});
    return client;
  }

  request<M extends keyof Requests>(method: M, params: Requests[M][0], signal: AbortSignal): Promise<Requests[M][1]> {
    return this.send(method, params, signal) as Promise<Requests[M][1]>;
  }

  /** As `request`, for messages of LSP itself. */
  async send(method: string, params: object, signal?: AbortSignal): Promise<unknown> {
    const cancel = new CancellationTokenSource();
    const onAbort = (): void => cancel.cancel();
    if (signal?.aborted === true) cancel.cancel();
    signal?.addEventListener("abort", onAbort, { once: true });
    try {
      return await Promise.race([this.#connection.sendRequest(method, params, cancel.token), this.#lost]);
    } catch (error) {
      throw error instanceof ResponseError ? failureOf(error) : error;
    } finally {
      signal?.removeEventListener("abort", onAbort);
      cancel.dispose();
    }
  }

  async notify(method: string, params: object): Promise<void> {
    await this.#connection.sendNotification(method, params);
  }

  on<M extends keyof Notifications>(method: M, listener: (params: Notifications[M]) => void): void {
    this.#connection.onNotification(method, listener);
  }

  /** A token for `partialResultToken`; what is streamed under it goes to `listener`. */
  onDelta(listener: (delta: ChatDelta) => void): string {
    const token = `chat-${++this.#progressTokens}`;
    this.#connection.onProgress(new ProgressType<ChatDelta>(), token, listener);
    return token;
  }

  dispose(): void {
    this.#connection.dispose();
    this.#socket.destroy();
  }
}

function failureOf(error: ResponseError<unknown>): EngineError {
  const data: unknown = error.data;
  const kind =
    typeof data === "object" && data !== null && "kind" in data && typeof data.kind === "string"
      ? data.kind
      : "internal";
  return new EngineError(kind as ErrorKind, error.message);
}
