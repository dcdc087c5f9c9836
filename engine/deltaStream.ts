/** Chat deltas to one client, at most some forty a second: text that comes faster is joined. */

import { ProgressType, type Connection } from "vscode-languageserver";
import { limits } from "./config";
import type { ChatDelta } from "./protocol";

const chatProgress = new ProgressType<ChatDelta>();

export class DeltaStream {
  readonly #connection: Connection;
  readonly #token: string | number | undefined;
  #text = "";
  #sentAt = -Infinity;
  #timer: NodeJS.Timeout | undefined;
  #sent: Promise<void> = Promise.resolve();

  /** Without a token nobody listens, and nothing is sent. */
  constructor(connection: Connection, token: string | number | undefined) {
    this.#connection = connection;
    this.#token = token;
  }

  push(delta: ChatDelta): void {
    if (delta.kind === "stage") {
      this.#sendText();
      this.#send(delta);
      return;
    }
    this.#text += delta.text;
    const wait = this.#sentAt + limits.streamFrameMs - performance.now();
    if (wait <= 0) this.#sendText();
    else this.#timer ??= setTimeout(() => this.#sendText(), wait);
  }

  /** Everything pushed is on its way, before the result of the request. */
  async flush(): Promise<void> {
    this.#sendText();
    await this.#sent;
  }

  #sendText(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#text === "") return;
    const text = this.#text;
    this.#text = "";
    this.#sentAt = performance.now();
    this.#send({ kind: "text", text });
  }

  #send(delta: ChatDelta): void {
    if (this.#token === undefined) return;
    this.#sent = this.#sendNow(this.#token, delta);
  }

  async #sendNow(token: string | number, delta: ChatDelta): Promise<void> {
    try {
      await this.#connection.sendProgress(chatProgress, token, delta);
    } catch {
      // The client is gone; its request is being stopped.
    }
  }
}
