/**
 * Conversations that may go on: behind which state of the repository each began, and what it was told since.
 *
 * Clients send all messages with every turn and know nothing of this. A conversation goes on behind the state that it
 * began with as long as it can be told what changed; if that is too much, or more was read meanwhile, it moves to the
 * present state, and its messages are read again there.
 */

import type { FileChange } from "../contexts/changes";
import type { RepositoryContext } from "../contexts/repositoryContext";
import { changeNotice, type ChangedText } from "../prompts/notice";
import type { ChatMessage, Place } from "../protocol";
import type { ModelText } from "../sessions/modelText";
import { changedLines } from "./changedLines";

/** A notice, and the index of the message before which it stands. */
interface Notice {
  readonly at: number;
  readonly text: string;
}

/** What a turn is to be rendered and computed with. */
export interface Turn {
  /** The client's, with notices among them. */
  readonly messages: readonly ChatMessage[];
  /** Behind which state; undefined for the present one. */
  readonly attends: string | undefined;
  /** Lines, as they were in that state, that are different now. */
  readonly hidden: readonly Place[];
  /** For `keep`. */
  readonly memory: Omit<Conversation, "asked" | "attends" | "scope">;
}

interface Conversation {
  /** Messages of its last turn, as the client sent them. */
  readonly asked: readonly ChatMessage[];
  readonly scope: string;
  readonly attends: string;
  /** Of the context's changes: which are in the state it began with, and which it was told of. */
  readonly beganAt: number;
  readonly toldAt: number;
  readonly notices: readonly Notice[];
}

const conversationsMax = 16;

/** A conversation is told of no more than this; beyond it, reading its own messages again is cheaper. */
const noticeTokensMax = 1_024;
const noticeFilesMax = 8;

/** Owns the memory of one context's conversations, the latest first. */
export class Conversations {
  readonly #context: RepositoryContext;
  readonly #text: Pick<ModelText, "lines" | "decodeStream">;
  #kept: Conversation[] = [];

  constructor(context: RepositoryContext, text: Pick<ModelText, "lines" | "decodeStream">) {
    this.#context = context;
    this.#text = text;
  }

  /** How to answer `messages` within `scope`. */
  turn(messages: readonly ChatMessage[], scope: readonly Place[]): Turn {
    const { changes } = this.#context;
    const known = this.#find(messages, JSON.stringify(scope));
    const since = known === undefined ? undefined : changes.since(known.beganAt);
    const news = known === undefined ? undefined : changes.since(known.toldAt);
    const present = { messages, attends: undefined, hidden: [] };
    const fresh: Turn = { ...present, memory: { beganAt: changes.now, toldAt: changes.now, notices: [] } };
    if (known === undefined || since === undefined || news === undefined) return fresh;
    if (known.attends === this.#context.attends) return fresh;
    if (this.#grewBeyond(known, since)) return fresh;
    const texts = this.#texts(news);
    if (texts === undefined) return fresh;
    const at = messages.length - 1;
    const notices = texts.length === 0 ? known.notices : [...known.notices, { at, text: changeNotice(texts) }];
    return {
      messages: withNotices(messages, notices),
      attends: known.attends,
      hidden: since.flatMap((change) => this.#hiddenBy(change)),
      memory: { beganAt: known.beganAt, toldAt: changes.now, notices },
    };
  }

  /** A turn was answered, by a tail that attends `attends`. */
  keep(asked: readonly ChatMessage[], scope: readonly Place[], attends: string, turn: Turn): void {
    const moved = turn.attends !== undefined && turn.attends !== attends;
    const now = this.#context.changes.now;
    const memory = moved ? { beganAt: now, toldAt: now, notices: [] } : turn.memory;
    this.#kept = [{ asked, scope: JSON.stringify(scope), attends, ...memory }, ...this.#kept].slice(
      0,
      conversationsMax,
    );
  }

  #find(messages: readonly ChatMessage[], scope: string): Conversation | undefined {
    return this.#kept.find(
      (each) =>
        each.scope === scope &&
        // A first question that was asked before begins a conversation of its own.
        each.asked.length < messages.length &&
        each.asked.every(({ role, content }, at) => messages[at]?.role === role && messages[at].content === content),
    );
  }

  /** Whether more is there now than `known` can see and `since` tells of, or its tail is gone. */
  #grewBeyond(known: Conversation, since: readonly FileChange[]): boolean {
    const segments = this.#context.chatTails.segmentsOf(known.attends);
    if (segments === undefined) return true;
    const seen = new Set(segments.map(({ key }) => key));
    const told = new Set(since.map(({ path }) => path));
    return this.#context.loadedSegments.some(
      ({ key, files }) => !seen.has(key) && !files.some((path) => told.has(path)),
    );
  }

  /** Undefined when it is too much to tell. */
  #texts(changes: readonly FileChange[]): readonly ChangedText[] | undefined {
    if (changes.length > noticeFilesMax) return undefined;
    const texts: ChangedText[] = [];
    let tokens = 0;
    for (const { path, kind, before, after } of changes) {
      if (kind === "removed") {
        texts.push({ path, kind, startLine: 0, endLine: 0, text: "" });
        continue;
      }
      if (after === undefined) return undefined;
      const lines = before === undefined ? undefined : changedLines(before, after, this.#text.lines);
      const told = lines?.tokens ?? after;
      tokens += told.length;
      if (tokens > noticeTokensMax) return undefined;
      const text = this.#decoded(told);
      texts.push({ path, kind, startLine: lines?.newStart ?? 0, endLine: lines?.newEnd ?? 0, text });
    }
    return texts;
  }

  #hiddenBy({ path, kind, before, after }: FileChange): readonly Place[] {
    if (kind === "added") return [];
    if (before === undefined || after === undefined) return [{ path, startLine: 0, endLine: 0 }];
    const { oldStart, oldEnd } = changedLines(before, after, this.#text.lines);
    return oldEnd < oldStart ? [] : [{ path, startLine: oldStart, endLine: oldEnd }];
  }

  #decoded(tokens: Uint32Array): string {
    const stream = this.#text.decodeStream();
    let text = "";
    for (const token of tokens) text += stream.push(token);
    return text + stream.end();
  }
}

function withNotices(messages: readonly ChatMessage[], notices: readonly Notice[]): readonly ChatMessage[] {
  return messages.flatMap((message, at) => [
    ...notices.filter((notice) => notice.at === at).map(({ text }): ChatMessage => ({ role: "user", content: text })),
    message,
  ]);
}
