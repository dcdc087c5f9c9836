import {
  CancellationError,
  EventEmitter,
  workspace,
  type CancellationToken,
  type Disposable,
  type Event,
  type LogOutputChannel,
} from "vscode";
import type { Middleware } from "vscode-languageclient/node";
import type {
  ChatDelta,
  ChatParams,
  ChatResult,
  EngineSettings,
  EngineStatus,
  Notifications,
  Requests,
} from "../engine/protocol";
import type { Connection } from "./connection";
import { failureFrom, Failure, isCancellation, isFailureKind, plainFailure } from "./errors";
import { isFinal, maxFailures, pauseMs, steadyMs } from "./reconnect";
import { Scope } from "./util/disposables";

export type ConnectionState =
  | { readonly kind: "connecting" }
  | { readonly kind: "connected" }
  | { readonly kind: "pausing" }
  | { readonly kind: "failed"; readonly failure: Failure }
  | { readonly kind: "closed" };

/** What the other parts of the extension may ask of the engine. */
export interface Engine {
  readonly state: ConnectionState;
  /** The last status the engine sent; null before the first and after the connection is lost. */
  readonly status: EngineStatus | null;
  /** The state or the status changed. */
  readonly onDidChange: Event<void>;
  readonly onIndexProgress: Event<Notifications["nosa/indexProgress"]>;
  readonly onDownloadProgress: Event<Notifications["nosa/downloadProgress"]>;
  /** Waits for a connection, sends, and throws a Failure or a cancellation. */
  request<M extends keyof Requests>(
    method: M,
    params: Requests[M][0],
    token?: CancellationToken,
  ): Promise<Requests[M][1]>;
  chat(params: ChatParams, onDelta: (delta: ChatDelta) => void, token: CancellationToken): Promise<ChatResult>;
  /** Ends the engine for every window, and starts it anew. */
  restart(): Promise<void>;
}

export interface ClientOptions {
  /** The engine's bundle. */
  readonly engineFile: string;
  readonly log: LogOutputChannel;
  readonly middleware: Middleware;
  readonly settings: () => EngineSettings;
}

/** How long a request waits for a connection before it fails. */
const connectionWaitMs = 30_000;

/**
 * The only owner of the connection to the engine: finds or starts it, keeps the connection, and tells the others.
 *
 * Two scopes: what lives as long as the extension hangs on this object, what lives as long as one connection on that.
 * A lost connection is disposed whole, so that nothing is registered twice after the next.
 */
export class EngineClient implements Engine, Disposable {
  readonly #options: ClientOptions;
  readonly #scope = new Scope();
  readonly #changed = this.#scope.add(new EventEmitter<void>());
  readonly #indexProgress = this.#scope.add(new EventEmitter<Notifications["nosa/indexProgress"]>());
  readonly #downloadProgress = this.#scope.add(new EventEmitter<Notifications["nosa/downloadProgress"]>());
  /** Tells the engine of files that change outside the editor's buffers. */
  readonly #files = this.#scope.add(workspace.createFileSystemWatcher("**/*"));
  readonly #stop = new AbortController();
  readonly onDidChange = this.#changed.event;
  readonly onIndexProgress = this.#indexProgress.event;
  readonly onDownloadProgress = this.#downloadProgress.event;
  #state: ConnectionState = { kind: "connecting" };
  #status: EngineStatus | null = null;
  #connection: Connection | undefined;
  #chats = 0;
  #restartAsked = false;
  /** Ends the pause between two tries. */
  #hurry: () => void = () => undefined;

  constructor(options: ClientOptions) {
    this.#options = options;
  }

  get state(): ConnectionState {
    return this.#state;
  }

  get status(): EngineStatus | null {
    return this.#status;
  }

  /** Connects in the background, and again whenever the connection is lost. */
  start(): void {
    void this.#stayConnected();
  }

  async request<M extends keyof Requests>(
    method: M,
    params: Requests[M][0],
    token?: CancellationToken,
  ): Promise<Requests[M][1]> {
    const connection = await this.#connected(token);
    try {
      // A token that is not there must not be passed: the library would take it for a second parameter.
      const more = token === undefined ? [] : [token];
      return await connection.client.sendRequest<Requests[M][1]>(method, params, ...more);
    } catch (error) {
      throw isCancellation(error) ? error : failureFrom(error);
    }
  }

  async chat(params: ChatParams, onDelta: (delta: ChatDelta) => void, token: CancellationToken): Promise<ChatResult> {
    const connection = await this.#connected(token);
    this.#chats += 1;
    const partialResultToken = `nosa-chat-${this.#chats}`;
    const listening = connection.onChat(partialResultToken, onDelta);
    try {
      return await this.request("nosa/chat", { ...params, partialResultToken }, token);
    } finally {
      listening.dispose();
    }
  }

  /** Passes new settings on; without a connection the next hello carries them. */
  async configure(settings: EngineSettings): Promise<void> {
    if (this.#connection !== undefined) await this.request("nosa/configure", settings);
  }

  async restart(): Promise<void> {
    const connection = this.#connection;
    this.#restartAsked = true;
    if (connection !== undefined) {
      // It may exit before it answers; a closed connection is what was asked for.
      await connection.client.sendRequest("nosa/drain", {}).catch(() => undefined);
      await connection.end();
    }
    this.#hurry();
  }

  dispose(): void {
    this.#stop.abort();
    this.#hurry();
    void this.#connection?.end();
    this.#move({ kind: "closed" });
    this.#scope.dispose();
  }

  async #stayConnected(): Promise<void> {
    let failures = 0;
    while (!this.#stop.signal.aborted) {
      this.#move({ kind: "connecting" });
      const { failure, livedMs } = await this.#oneConnection();
      failures = livedMs >= steadyMs ? 1 : failures + 1;
      if (this.#stop.signal.aborted) return;
      if (!this.#restartAsked) await this.#rest(failure, failures);
      if (this.#restartAsked) failures = 0;
      this.#restartAsked = false;
    }
  }

  /** Opens a connection and stays until it is gone; says why, and how long it lasted. */
  async #oneConnection(): Promise<{ readonly failure: Failure; readonly livedMs: number }> {
    try {
      const connection = await this.#open();
      const openedAtMs = Date.now();
      await connection.lost;
      return { failure: plainFailure("connectionLost"), livedMs: Date.now() - openedAtMs };
    } catch (error) {
      return { failure: failureFrom(error), livedMs: 0 };
    } finally {
      this.#connection = undefined;
      this.#status = null;
    }
  }

  /** Pauses before the next try, or gives up until someone asks for a restart. */
  async #rest(failure: Failure, failures: number): Promise<void> {
    this.#options.log.warn(`${failure.message} (${failures} of ${maxFailures} failures in a row)`);
    const givenUp = isFinal(failure.kind) || failures >= maxFailures;
    await new Promise<void>((resolve) => {
      const timer = givenUp ? undefined : setTimeout(resolve, pauseMs(failures));
      this.#hurry = () => {
        clearTimeout(timer);
        resolve();
      };
      this.#move(givenUp ? { kind: "failed", failure } : { kind: "pausing" });
    });
  }

  async #open(): Promise<Connection> {
    const { engineFile, log, middleware, settings } = this.#options;
    // Most of the extension's code is the library that speaks to the engine: it is loaded when the editor has gone on.
    await new Promise((resolve) => setImmediate(resolve));
    const { openConnection } = await import("./connection.js");
    const connection = await openConnection({
      engineFile,
      settings,
      middleware,
      files: this.#files,
      log,
      signal: this.#stop.signal,
    }).catch((error: unknown) => {
      throw connectFailure(error);
    });
    connection.client.onNotification("nosa/statusChanged", (status: EngineStatus) => this.#learn(status));
    connection.client.onNotification("nosa/indexProgress", (progress: Notifications["nosa/indexProgress"]) =>
      this.#indexProgress.fire(progress),
    );
    connection.client.onNotification("nosa/downloadProgress", (progress: Notifications["nosa/downloadProgress"]) =>
      this.#downloadProgress.fire(progress),
    );
    try {
      await connection.start();
      this.#learn(await connection.client.sendRequest<EngineStatus>("nosa/status", {}));
    } catch (error) {
      await connection.end();
      throw error;
    }
    this.#connection = connection;
    this.#move({ kind: "connected" });
    return connection;
  }

  #learn(status: EngineStatus): void {
    this.#status = status;
    this.#changed.fire();
  }

  #move(state: ConnectionState): void {
    if (this.#state.kind === "closed") return;
    this.#state = state;
    this.#changed.fire();
  }

  async #connected(token?: CancellationToken): Promise<Connection> {
    const deadlineMs = Date.now() + connectionWaitMs;
    for (;;) {
      if (this.#state.kind === "failed") throw this.#state.failure;
      if (this.#state.kind === "closed") throw plainFailure("connectionLost");
      if (this.#state.kind === "connected" && this.#connection !== undefined) return this.#connection;
      const leftMs = deadlineMs - Date.now();
      if (leftMs <= 0) throw plainFailure("engineUnavailable");
      await this.#nextChange(leftMs, token);
      if (token?.isCancellationRequested === true) throw new CancellationError();
    }
  }

  #nextChange(timeoutMs: number, token?: CancellationToken): Promise<void> {
    return new Promise((resolve) => {
      const waiting = new Scope();
      const done = (): void => {
        waiting.dispose();
        resolve();
      };
      const timer = setTimeout(done, timeoutMs);
      waiting.add({ dispose: () => clearTimeout(timer) });
      waiting.add(this.onDidChange(done));
      if (token !== undefined) waiting.add(token.onCancellationRequested(done));
    });
  }
}

function connectFailure(error: unknown): Failure {
  if (!(error instanceof Error)) return plainFailure("engineUnavailable");
  const kind = error.name === "ConnectError" && "kind" in error && isFailureKind(error.kind) ? error.kind : "internal";
  return new Failure(kind === "internal" ? "engineUnavailable" : kind, error.message);
}
