import { CancellationTokenSource, EventEmitter, type Disposable, type Location, type LogOutputChannel } from "vscode";
import type { Engine } from "../client";
import { chatParams, stageText } from "../chat";
import { failureFrom, failureView, isCancellation } from "../errors";
import { referenceLocation, shownReferences } from "../references";
import { currentFolder, rootOf } from "../roots";
import { Scope } from "../util/disposables";
import { after, emptyConversation, messagesOf, streamingTurn, type ChatEvent, type Conversation } from "./conversation";
import type { ToView } from "./messages";

/** Owns the conversation of the chat view; lives on while the view is hidden. One answer at a time. */
export class Chat implements Disposable {
  readonly #engine: Engine;
  readonly #log: LogOutputChannel;
  readonly #scope = new Scope();
  readonly #messages = this.#scope.add(new EventEmitter<ToView>());
  /** What the view must be told. */
  readonly onMessage = this.#messages.event;
  readonly #locations = new Map<string, Location>();
  #conversation: Conversation = emptyConversation;
  #running: CancellationTokenSource | undefined;

  constructor(engine: Engine, log: LogOutputChannel) {
    this.#engine = engine;
    this.#log = log;
  }

  get conversation(): Conversation {
    return this.#conversation;
  }

  get busy(): boolean {
    return streamingTurn(this.#conversation) !== undefined;
  }

  /** Where a reference that was shown points to. */
  location(referenceId: string): Location | undefined {
    return this.#locations.get(referenceId);
  }

  async ask(text: string): Promise<void> {
    const question = text.trim();
    if (question === "" || this.busy) return;
    const before = this.#conversation.turns.length;
    this.#apply({ kind: "asked", text: question });
    for (const turn of this.#conversation.turns.slice(Math.max(0, before))) this.#tellTurn(turn.id);

    const running = new CancellationTokenSource();
    this.#running = running;
    try {
      await this.#answer(running);
    } finally {
      running.dispose();
      if (this.#running === running) this.#running = undefined;
    }
  }

  stop(): void {
    this.#running?.cancel();
  }

  clear(): void {
    this.stop();
    this.#locations.clear();
    this.#apply({ kind: "cleared" });
  }

  dispose(): void {
    this.stop();
    this.#scope.dispose();
  }

  async #answer(running: CancellationTokenSource): Promise<void> {
    const turnId = streamingTurn(this.#conversation)?.id;
    if (turnId === undefined) return;
    const folder = currentFolder(this.#engine.status?.contexts ?? []);
    const params = chatParams(folder === undefined ? "" : rootOf(folder), messagesOf(this.#conversation));
    try {
      const result = await this.#engine.chat(
        params,
        (delta) => {
          if (delta.kind === "stage") this.#messages.fire({ kind: "stage", turnId, text: stageText(delta.stage) });
          else this.#stream(turnId, delta.text);
        },
        running.token,
      );
      if (!this.#isOpen(turnId)) return;
      if (folder !== undefined) {
        shownReferences(result.references).forEach((reference, index) =>
          this.#locations.set(`${turnId}/${index}`, referenceLocation(folder, reference)),
        );
      }
      this.#apply({ kind: "answered", result });
    } catch (error) {
      if (!this.#isOpen(turnId)) return;
      this.#apply(isCancellation(error) ? { kind: "stopped" } : { kind: "failed", message: this.#explain(error) });
    }
    this.#tellTurn(turnId);
  }

  #explain(error: unknown): string {
    const failure = failureFrom(error);
    this.#log.error(`${failure.kind}: ${failure.message}`);
    return failureView(failure).text;
  }

  #stream(turnId: string, text: string): void {
    // A conversation that was cleared meanwhile has no such turn any more.
    if (!this.#isOpen(turnId)) return;
    this.#apply({ kind: "delta", text });
    this.#messages.fire({ kind: "delta", turnId, text });
  }

  #isOpen(turnId: string): boolean {
    return streamingTurn(this.#conversation)?.id === turnId;
  }

  #apply(event: ChatEvent): void {
    this.#conversation = after(this.#conversation, event);
  }

  #tellTurn(turnId: string): void {
    const turn = this.#conversation.turns.find((candidate) => candidate.id === turnId);
    if (turn !== undefined) this.#messages.fire({ kind: "turn", turn, busy: this.busy });
  }
}
