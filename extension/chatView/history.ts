import type { Memento } from "vscode";
import * as z from "zod/mini";
import { noHint } from "../apply/offers";
import { emptyConversation, turnsMax, viewReferences, type Conversation, type Turn } from "./conversation";

/** A conversation that is kept. */
export interface KeptChat {
  readonly id: number;
  /** Milliseconds since 1970 of its last answer. */
  readonly atMs: number;
  readonly conversation: Conversation;
}

/** The oldest beyond these are let go. */
export const chatsMax = 30;
const charactersMax = 2_000_000;

const storeKey = "nosa.chats";
const openKey = "nosa.openChat";

/** The conversations of this workspace's own view, kept over reloads. The newest first. */
export class ChatHistory {
  readonly #store: Pick<Memento, "get" | "update">;
  #chats: readonly KeptChat[];

  constructor(store: Pick<Memento, "get" | "update">) {
    this.#store = store;
    this.#chats = parsedChats(store.get<unknown>(storeKey));
  }

  get chats(): readonly KeptChat[] {
    return this.#chats;
  }

  /** The one that was open last; undefined when that was an empty one. */
  get open(): KeptChat | undefined {
    const id = this.#store.get<unknown>(openKey);
    return this.#chats.find((chat) => chat.id === id);
  }

  async markOpen(id: number): Promise<void> {
    await this.#store.update(openKey, id);
  }

  get nextId(): number {
    return 1 + Math.max(0, ...this.#chats.map(({ id }) => id));
  }

  async keep(chat: KeptChat): Promise<void> {
    const others = this.#chats.filter(({ id }) => id !== chat.id);
    const newestFirst = [chat, ...others].filter(({ conversation }) => conversation.turns.length > 0);
    await this.#set(newestFirst);
  }

  async remove(id: number): Promise<void> {
    await this.#set(this.#chats.filter((chat) => chat.id !== id));
  }

  async #set(chats: readonly KeptChat[]): Promise<void> {
    this.#chats = withinLimits(chats);
    await this.#store.update(storeKey, this.#chats);
  }
}

function withinLimits(chats: readonly KeptChat[]): readonly KeptChat[] {
  let characters = 0;
  return chats.slice(0, chatsMax).filter((chat, index) => {
    characters += JSON.stringify(chat).length;
    return index === 0 || characters <= charactersMax;
  });
}

/** First words of a conversation. */
export function titleOf({ conversation }: KeptChat): string {
  const text = conversation.turns.find(({ role }) => role === "user")?.markdown ?? "";
  const line = text.replaceAll(/\s+/g, " ").trim();
  return line.length > 80 ? `${line.slice(0, 79)}…` : line;
}

const place = z.object({ path: z.string(), startLine: z.number(), endLine: z.number(), share: z.number() });
const lines = z.nullable(z.object({ from: z.number(), to: z.number() }));
const keptTurn = z.object({
  id: z.string(),
  role: z.enum(["user", "assistant"]),
  markdown: z.string(),
  attachments: z.catch(z.array(z.string()), []),
  footnote: z.catch(z.string(), ""),
  state: z.enum(["streaming", "done", "stopped", "failed"]),
  content: z.catch(z.string(), ""),
  root: z.catch(z.string(), ""),
  places: z.catch(z.array(place), []),
  hint: z.catch(z.object({ about: z.string(), lines, path: z.string() }), { ...noHint }),
});
const keptChat = z.object({
  id: z.int(),
  atMs: z.number(),
  conversation: z.object({ turns: z.array(keptTurn), nextId: z.int() }),
});

/** What was kept may come from another version: a chat that does not fit is let go, the others stay. */
function parsedChats(kept: unknown): readonly KeptChat[] {
  if (!Array.isArray(kept)) return [];
  return kept.flatMap((each: unknown) => {
    const parsed = keptChat.safeParse(each);
    if (!parsed.success) return [];
    const { id, atMs, conversation } = parsed.data;
    const turns = conversation.turns.slice(-turnsMax).map(restored);
    return [{ id, atMs, conversation: { turns, nextId: conversation.nextId } }];
  });
}

/** Nobody writes on at an answer that was being written when the window was closed. */
function restored(turn: z.output<typeof keptTurn>): Turn {
  const state = turn.state === "streaming" ? "stopped" : turn.state;
  return { ...turn, state, references: viewReferences(turn.id, turn.places) };
}

export function emptyChat(id: number, atMs: number): KeptChat {
  return { id, atMs, conversation: emptyConversation };
}
