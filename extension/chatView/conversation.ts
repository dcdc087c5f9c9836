import { l10n } from "vscode";
import type { ChatMessage, ChatResult, Reference } from "../../engine/protocol";
import { noHint, type ApplyHint } from "../apply/offers";
import { usageText } from "../chat";
import { referenceLabel, shownReferences } from "../references";
import type { ViewReference, ViewTurn } from "./messages";

/** A turn with what the view need not know. */
export interface Turn extends ViewTurn {
  /** Of a question: what the model was asked, word for word, so that its KV is found again. "" while it is prepared. */
  readonly content: string;
  /** The repository it was about; "" for none. */
  readonly root: string;
  /** Of an answer: where its references point, in their order. */
  readonly places: readonly Reference[];
  /** Of an answer: where its code may go. */
  readonly hint: ApplyHint;
}

/** The conversation of the chat view: what was said, in order. Values never change; each event makes a new one. */
export interface Conversation {
  readonly turns: readonly Turn[];
  /** Number of the next turn; ids are never used twice, also after a clear. */
  readonly nextId: number;
}

export const emptyConversation: Conversation = { turns: [], nextId: 1 };

/** Older turns are dropped beyond this many, question and answer together. */
export const turnsMax = 200;

export type ChatEvent =
  | { readonly kind: "asked"; readonly text: string; readonly attachments: readonly string[] }
  /** What the open question came to. */
  | {
      readonly kind: "prepared";
      readonly content: string;
      readonly root: string;
      readonly attachments: readonly string[];
      readonly hint: ApplyHint;
    }
  | { readonly kind: "delta"; readonly text: string }
  | { readonly kind: "answered"; readonly result: ChatResult }
  | { readonly kind: "stopped" }
  | { readonly kind: "failed"; readonly message: string }
  | { readonly kind: "cleared" };

/** What the event makes of the conversation. Pure. Events for an answer count only while one is streaming. */
export function after(conversation: Conversation, event: ChatEvent): Conversation {
  switch (event.kind) {
    case "asked":
      return asked(conversation, event.text, event.attachments);
    case "prepared":
      return prepared(conversation, event);
    case "delta":
      return changeAnswer(conversation, (turn) => ({ ...turn, markdown: turn.markdown + event.text }));
    case "answered":
      return changeAnswer(conversation, (turn) => answered(turn, event.result));
    case "stopped":
      return changeAnswer(conversation, (turn) => ({ ...turn, state: "stopped", footnote: l10n.t("Stopped") }));
    case "failed":
      return changeAnswer(conversation, (turn) => ({ ...turn, state: "failed", footnote: event.message }));
    case "cleared":
      return { turns: [], nextId: conversation.nextId };
  }
}

/** The answer that is being written, if any. */
export function streamingTurn(conversation: Conversation): Turn | undefined {
  const last = conversation.turns.at(-1);
  return last?.state === "streaming" ? last : undefined;
}

/** What the engine is told: every finished exchange, and the open question last. A failed exchange is left out. */
export function messagesOf(conversation: Conversation): readonly ChatMessage[] {
  const messages: ChatMessage[] = [];
  for (let at = 0; at + 1 < conversation.turns.length; at += 2) {
    const [question, reply] = [conversation.turns[at], conversation.turns[at + 1]];
    if (question === undefined || reply === undefined || reply.state === "failed") continue;
    messages.push({ role: "user", content: question.content === "" ? question.markdown : question.content });
    const isSaid = reply.state !== "streaming" && reply.markdown !== "";
    if (isSaid) messages.push({ role: "assistant", content: reply.markdown });
    else if (reply.state !== "streaming") messages.pop();
  }
  return messages;
}

/** The conversation up to a question, without it: what a fork begins with. */
export function before(conversation: Conversation, turnId: string): Conversation {
  const at = conversation.turns.findIndex(({ id, role }) => id === turnId && role === "user");
  return at < 0 ? conversation : { ...conversation, turns: conversation.turns.slice(0, at) };
}

/** What the view is shown of a turn. */
export function viewTurn(turn: Turn): ViewTurn {
  const { id, role, markdown, attachments, references, footnote, state } = turn;
  return { id, role, markdown, attachments, references, footnote, state };
}

function asked(conversation: Conversation, text: string, attachments: readonly string[]): Conversation {
  if (streamingTurn(conversation) !== undefined) return conversation;
  const id = conversation.nextId;
  const question = { ...turn(`t${id}`, "user", text, "done"), attachments };
  const answer = turn(`t${id + 1}`, "assistant", "", "streaming");
  const turns = [...conversation.turns, question, answer];
  return { turns: turns.slice(-turnsMax), nextId: id + 2 };
}

function turn(id: string, role: ViewTurn["role"], markdown: string, state: ViewTurn["state"]): Turn {
  const shown = { id, role, markdown, attachments: [], references: [], footnote: "", state };
  return { ...shown, content: "", root: "", places: [], hint: noHint };
}

function prepared(conversation: Conversation, event: Extract<ChatEvent, { kind: "prepared" }>): Conversation {
  const question = conversation.turns.at(-2);
  if (streamingTurn(conversation) === undefined || question === undefined) return conversation;
  const { content, root, attachments, hint } = event;
  const turns = [...conversation.turns.slice(0, -2), { ...question, content, root, attachments }];
  const answer = conversation.turns.slice(-1).map((each) => ({ ...each, root, hint }));
  return { ...conversation, turns: [...turns, ...answer] };
}

function changeAnswer(conversation: Conversation, change: (turn: Turn) => Turn): Conversation {
  const open = streamingTurn(conversation);
  if (open === undefined) return conversation;
  return { ...conversation, turns: [...conversation.turns.slice(0, -1), change(open)] };
}

function answered(turn: Turn, result: ChatResult): Turn {
  const usage = usageText(result.usage);
  const cut = result.finish === "length" ? l10n.t("Cut at the longest answer") : "";
  const places = shownReferences(result.references);
  return {
    ...turn,
    // The whole text replaces the pieces: the engine may have trimmed what it had sent.
    markdown: result.text,
    places,
    references: viewReferences(turn.id, places),
    footnote: [result.finish === "cancelled" ? l10n.t("Stopped") : cut, usage]
      .filter((part) => part !== "")
      .join(" · "),
    state: result.finish === "cancelled" ? "stopped" : "done",
  };
}

export function viewReferences(turnId: string, places: readonly Reference[]): readonly ViewReference[] {
  return places.map((reference, index) => ({
    id: `${turnId}/${index}`,
    label: referenceLabel(reference),
    share: Math.min(1, Math.max(0, reference.share)),
  }));
}
