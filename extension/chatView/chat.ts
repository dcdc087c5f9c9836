import {
  CancellationTokenSource,
  EventEmitter,
  type Disposable,
  type Location,
  type LogOutputChannel,
  type Uri,
  type WorkspaceFolder,
} from "vscode";
import { codeBlocks } from "../apply/codeBlocks";
import { applyHint, codeToApply } from "../apply/offers";
import type { CodeToApply } from "../apply/proposals";
import { prepare, type Asking, type Prepared } from "../asking/prepare";
import { parseAsked } from "../asking/slash";
import type { Attention } from "../attention";
import { chatParams, stageText } from "../chat";
import { failureFrom, failureView, isCancellation, logText } from "../errors";
import { referenceLocation } from "../references";
import { folders, rootOf } from "../roots";
import { Scope } from "../util/disposables";
import { after, before, messagesOf, streamingTurn, viewTurn, type ChatEvent, type Conversation } from "./conversation";
import { emptyChat, type ChatHistory, type KeptChat } from "./history";
import type { ToView, ViewAttachment } from "./messages";

export interface ChatOptions extends Asking {
  readonly attention: Attention;
  readonly history: ChatHistory;
  readonly log: Pick<LogOutputChannel, "error">;
  readonly nowMs: () => number;
}

/** Files, folders and lines that go along with the next question. */
export interface PendingAttachment extends ViewAttachment {
  readonly what: Uri | Location;
}

/** Owns the conversation of the chat view; lives on while the view is hidden. One answer at a time. */
export class Chat implements Disposable {
  readonly #options: ChatOptions;
  readonly #scope = new Scope();
  readonly #messages = this.#scope.add(new EventEmitter<ToView>());
  /** What the view must be told. */
  readonly onMessage = this.#messages.event;
  #chat: KeptChat;
  #attachments: readonly PendingAttachment[] = [];
  #attached = 0;
  #running: CancellationTokenSource | undefined;

  constructor(options: ChatOptions) {
    this.#options = options;
    this.#chat = options.history.open ?? emptyChat(options.history.nextId, options.nowMs());
  }

  get conversation(): Conversation {
    return this.#chat.conversation;
  }

  get id(): number {
    return this.#chat.id;
  }

  get attachments(): readonly ViewAttachment[] {
    return this.#attachments.map(({ id, label }) => ({ id, label }));
  }

  get busy(): boolean {
    return streamingTurn(this.conversation) !== undefined;
  }

  /** Where a reference that was shown points to. */
  location(referenceId: string): Location | undefined {
    const [turnId, index] = referenceId.split("/");
    const turn = this.conversation.turns.find(({ id }) => id === turnId);
    const place = turn?.places[Number(index)];
    const folder = turn === undefined ? undefined : folderOf(turn.root);
    return place === undefined || folder === undefined ? undefined : referenceLocation(folder, place);
  }

  /** Code of an answer with where it may go; undefined for a turn that is not there. */
  codeOf(
    turnId: string,
    code: string,
  ): { readonly what: CodeToApply; readonly folder: WorkspaceFolder | undefined } | undefined {
    const turn = this.conversation.turns.find(({ id }) => id === turnId);
    if (turn === undefined) return undefined;
    const block = codeBlocks(turn.markdown).find((each) => each.code.trim() === code.trim());
    return { what: codeToApply(code, block?.path ?? "", turn.hint), folder: folderOf(turn.root) };
  }

  attach(what: Uri | Location, label: string): void {
    if (this.#attachments.some((each) => each.label === label)) return;
    this.#attached += 1;
    this.#attachments = [...this.#attachments, { id: `a${this.#attached}`, label, what }];
    this.#tellAttachments();
  }

  detach(attachmentId: string): void {
    this.#attachments = this.#attachments.filter(({ id }) => id !== attachmentId);
    this.#tellAttachments();
  }

  /** A question, with what is attached. "/name" at its beginning is a command. */
  async ask(text: string): Promise<void> {
    if (text.trim() === "" || this.busy) return;
    const references = this.#attachments;
    this.#attachments = [];
    this.#apply({ kind: "asked", text: text.trim(), attachments: references.map(({ label }) => label) });
    this.#tellTurns(2);
    if (references.length > 0) this.#tellAttachments();

    const running = new CancellationTokenSource();
    this.#running = running;
    const turnId = streamingTurn(this.conversation)?.id ?? "";
    try {
      await this.#answer(turnId, text, references, running);
    } finally {
      running.dispose();
      if (this.#running === running) this.#running = undefined;
    }
    await this.#keep();
  }

  stop(): void {
    this.#running?.cancel();
  }

  /** A new, empty conversation; the old one is kept. */
  clear(): void {
    this.show(emptyChat(this.#freshId(), this.#options.nowMs()));
  }

  /** Goes on with a conversation that was kept. */
  show(chat: KeptChat): void {
    this.stop();
    // An answer that was under way ends here, and is kept as far as it came.
    if (this.busy)
      void this.#options.history.keep({ ...this.#chat, conversation: after(this.conversation, { kind: "stopped" }) });
    // Ids go on counting: nothing of an answer that is still under way finds a turn of the new conversation.
    const nextId = Math.max(chat.conversation.nextId, this.conversation.nextId);
    this.#chat = { ...chat, conversation: { ...chat.conversation, nextId } };
    void this.#options.history.markOpen(chat.id);
  }

  /** A conversation of its own with everything before a question; gives the question's words, to be changed. */
  fork(turnId: string): string {
    const question = this.conversation.turns.find(({ id, role }) => id === turnId && role === "user");
    if (question === undefined) return "";
    this.show({ id: this.#freshId(), atMs: this.#options.nowMs(), conversation: before(this.conversation, turnId) });
    return question.markdown;
  }

  dispose(): void {
    this.stop();
    this.#scope.dispose();
  }

  #freshId(): number {
    return Math.max(this.#options.history.nextId, this.#chat.id + 1);
  }

  async #answer(
    turnId: string,
    text: string,
    references: readonly PendingAttachment[],
    running: CancellationTokenSource,
  ): Promise<void> {
    try {
      const asked = parseAsked(text);
      const prepared = await prepare(this.#options, { ...asked, references: references.map(({ what }) => what) });
      if (!this.#isOpen(turnId)) return;
      this.#apply(preparedEvent(prepared, applyHint(asked.command, prepared)));
      this.#tellTurns(2);
      const result = await this.#options.engine.chat(
        chatParams(prepared.root, messagesOf(this.conversation), prepared.pins),
        (delta) => {
          if (delta.kind === "stage") this.#messages.fire({ kind: "stage", turnId, text: stageText(delta.stage) });
          else this.#stream(turnId, delta.text);
        },
        running.token,
      );
      if (!this.#isOpen(turnId)) return;
      this.#options.attention.learn(prepared.root, text, result);
      this.#apply({ kind: "answered", result });
    } catch (error) {
      if (!this.#isOpen(turnId)) return;
      this.#apply(isCancellation(error) ? { kind: "stopped" } : { kind: "failed", message: this.#explain(error) });
    }
    this.#tellTurns(1);
  }

  #explain(error: unknown): string {
    const failure = failureFrom(error);
    this.#options.log.error(logText(failure));
    return failureView(failure).text;
  }

  #stream(turnId: string, text: string): void {
    // A conversation that was cleared meanwhile has no such turn any more.
    if (!this.#isOpen(turnId)) return;
    this.#apply({ kind: "delta", text });
    this.#messages.fire({ kind: "delta", turnId, text });
  }

  #isOpen(turnId: string): boolean {
    return streamingTurn(this.conversation)?.id === turnId;
  }

  #apply(event: ChatEvent): void {
    this.#chat = { ...this.#chat, conversation: after(this.conversation, event) };
  }

  async #keep(): Promise<void> {
    const { history, nowMs } = this.#options;
    await history.keep({ ...this.#chat, atMs: nowMs() });
    await history.markOpen(this.#chat.id);
  }

  #tellTurns(count: number): void {
    const { busy } = this;
    for (const turn of this.conversation.turns.slice(-count)) {
      this.#messages.fire({ kind: "turn", turn: viewTurn(turn), busy });
    }
  }

  #tellAttachments(): void {
    this.#messages.fire({ kind: "attachments", attachments: this.attachments });
  }
}

function preparedEvent(prepared: Prepared, hint: Extract<ChatEvent, { kind: "prepared" }>["hint"]): ChatEvent {
  const attachments = prepared.attachments.map(({ label }) => label);
  return { kind: "prepared", content: prepared.message.content, root: prepared.root, attachments, hint };
}

function folderOf(root: string): WorkspaceFolder | undefined {
  return folders().find((folder) => rootOf(folder) === root);
}
