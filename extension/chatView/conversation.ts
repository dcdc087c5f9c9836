import type { ChatMessage, ChatResult } from "../../engine/protocol";
import { usageText } from "../chat";
import { referenceLabel, shownReferences } from "../references";
import type { ViewReference, ViewTurn } from "./messages";

/** The conversation of the chat view: what was said, in order. Values never change; each event makes a new one. */
export interface Conversation {
  readonly turns: readonly ViewTurn[];
  /** Number of the next turn; ids are never used twice, also after a clear. */
  readonly nextId: number;
}

export const emptyConversation: Conversation = { turns: [], nextId: 1 };

/** Older turns are dropped beyond this many, question and answer together. */
export const turnsMax = 200;

export type ChatEvent =
  | { readonly kind: "asked"; readonly text: string }
  | { readonly kind: "delta"; readonly text: string }
  | { readonly kind: "answered"; readonly result: ChatResult }
  | { readonly kind: "stopped" }
  | { readonly kind: "failed"; readonly message: string }
  | { readonly kind: "cleared" };

/** What the event makes of the conversation. Pure. Events for an answer count only while one is streaming. */
export function after(conversation: Conversation, event: ChatEvent): Conversation {
  switch (event.kind) {
    case "asked":
      return asked(conversation, event.text);
    case "delta":
      return changeAnswer(conversation, (turn) => ({ ...turn, markdown: turn.markdown + event.text }));
    case "answered":
      return changeAnswer(conversation, (turn) => answered(turn, event.result));
    case "stopped":
      return changeAnswer(conversation, (turn) => ({ ...turn, state: "stopped", footnote: "Stopped" }));
    case "failed":
      return changeAnswer(conversation, (turn) => ({ ...turn, state: "failed", footnote: event.message }));
    case "cleared":
      return { turns: [], nextId: conversation.nextId };
  }
}

/** The answer that is being written, if any. */
export function streamingTurn(conversation: Conversation): ViewTurn | undefined {
  const last = conversation.turns.at(-1);
  return last?.state === "streaming" ? last : undefined;
}

/** What the engine is told: every finished exchange, and the open question last. A failed exchange is left out. */
export function messagesOf(conversation: Conversation): readonly ChatMessage[] {
  const messages: ChatMessage[] = [];
  for (let at = 0; at + 1 < conversation.turns.length; at += 2) {
    const [question, reply] = [conversation.turns[at], conversation.turns[at + 1]];
    if (question === undefined || reply === undefined || reply.state === "failed") continue;
    messages.push({ role: "user", content: question.markdown });
    const isSaid = reply.state !== "streaming" && reply.markdown !== "";
    if (isSaid) messages.push({ role: "assistant", content: reply.markdown });
    else if (reply.state !== "streaming") messages.pop();
  }
  return messages;
}

function asked(conversation: Conversation, text: string): Conversation {
  if (streamingTurn(conversation) !== undefined) return conversation;
  const id = conversation.nextId;
  const question = turn(`t${id}`, "user", text, "done");
  const answer = turn(`t${id + 1}`, "assistant", "", "streaming");
  const turns = [...conversation.turns, question, answer];
  return { turns: turns.slice(-turnsMax), nextId: id + 2 };
}

function turn(id: string, role: ViewTurn["role"], markdown: string, state: ViewTurn["state"]): ViewTurn {
  return { id, role, markdown, references: [], footnote: "", state };
}

function changeAnswer(conversation: Conversation, change: (turn: ViewTurn) => ViewTurn): Conversation {
  const open = streamingTurn(conversation);
  if (open === undefined) return conversation;
  return { ...conversation, turns: [...conversation.turns.slice(0, -1), change(open)] };
}

function answered(turn: ViewTurn, result: ChatResult): ViewTurn {
  const usage = usageText(result.usage);
  const cut = result.finish === "length" ? "Cut at the longest answer" : "";
  return {
    ...turn,
    // The whole text replaces the pieces: the engine may have trimmed what it had sent.
    markdown: result.text,
    references: viewReferences(turn.id, result),
    footnote: [result.finish === "cancelled" ? "Stopped" : cut, usage].filter((part) => part !== "").join(" · "),
    state: result.finish === "cancelled" ? "stopped" : "done",
  };
}

function viewReferences(turnId: string, result: ChatResult): readonly ViewReference[] {
  return shownReferences(result.references).map((reference, index) => ({
    id: `${turnId}/${index}`,
    label: referenceLabel(reference),
    share: Math.min(1, Math.max(0, reference.share)),
  }));
}
