/**
 * A conversation → the tail that follows header and segments: a chat from its very beginning, with our own line as system text and what the editor has to say
 * as system behind it.
 */

import { EngineError } from "../errors";
import type { ChatMessage } from "../protocol";
import { joined, type Tokenizer } from "../tokenizer/tokenizer";
import type { PromptFormat } from "./format";
import type { Role } from "./template";

export interface ChatTailOptions {
  readonly messages: readonly ChatMessage[];
  /** Whether a repository stands before the tail, which the system text speaks of. True unless told. */
  readonly repository?: boolean;
  /** Most tokens of the tail, the answer not counted. */
  readonly tokensMax: number;
}

export interface ChatTail {
  readonly tokens: Uint32Array;
  /** Oldest messages that did not fit. System messages and the last message always stay. */
  readonly dropped: number;
  /** Whether the middle of the system messages or of the last message was cut out, because they alone did not fit. */
  readonly cut: boolean;
}

export type Encoder = Pick<Tokenizer, "encode">;

/** `messages` ends with a user message, else EngineError `badRequest`. */
export async function chatTail(encoder: Encoder, format: PromptFormat, options: ChatTailOptions): Promise<ChatTail> {
  const line = options.repository === false ? lineWithoutRepository : lineWithRepository;
  const said = options.messages.filter(({ role }) => role === "system").map(({ content }) => content);
  const system = [line, ...said].join("\n\n");
  const turns = alternating(options.messages);
  if (turns.at(-1)?.role !== "user") {
    throw new EngineError("badRequest", "A question has to come last in the conversation.");
  }
  const texts = await encoder.encode([
    { text: system, special: false },
    ...turns.map(({ content }) => ({ text: content, special: false })),
  ]);
  const contents = turns.map(({ role }, at) => ({ role, tokens: texts[at + 1] ?? nothing }));
  const tails = new Tails(encoder, format, texts[0] ?? nothing, contents);

  const first = await firstThatFits(tails, options.tokensMax);
  const dropped = turns.slice(0, first).reduce((sum, turn) => sum + turn.messages, 0);
  const whole = await tails.from(first);
  if (whole.length <= options.tokensMax) return { tokens: whole, dropped, cut: false };
  return { tokens: await tails.cutFrom(first, whole.length - options.tokensMax), dropped, cut: true };
}

const lineWithRepository =
  "You are Nosa, a coding assistant. You have read the whole repository above: answer from its files and name the paths you rely on.";
const lineWithoutRepository = "You are Nosa, a coding assistant.";

const nothing = new Uint32Array();

interface Turn {
  readonly role: Role;
  readonly content: string;
  /** How many messages make the turn. */
  readonly messages: number;
}

/** User and assistant in turns, the user first; neighbours of one role become one turn, an assistant's opening words are kept out. */
function alternating(messages: readonly ChatMessage[]): readonly Turn[] {
  const turns: Turn[] = [];
  for (const { role, content } of messages) {
    if (role === "system") continue;
    const last = turns.at(-1);
    if (last === undefined && role === "assistant") continue;
    if (last?.role === role) {
      turns[turns.length - 1] = { role, content: `${last.content}\n\n${content}`, messages: last.messages + 1 };
    } else turns.push({ role, content, messages: 1 });
  }
  return turns;
}

/** Index of the oldest user turn from which on everything fits; the last one when nothing does. */
async function firstThatFits(tails: Tails, tokensMax: number): Promise<number> {
  // Turns alternate, so user turns have even indices; the tail shrinks with every pair that is left out.
  let low = 0;
  let high = (tails.turns - 1) / 2;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((await tails.from(2 * middle)).length <= tokensMax) high = middle;
    else low = middle + 1;
  }
  return 2 * low;
}

interface Content {
  readonly role: Role;
  readonly tokens: Uint32Array;
}

/** Tails of one conversation that begin at different turns. */
class Tails {
  readonly #encoder: Encoder;
  readonly #format: PromptFormat;
  readonly #system: Uint32Array;
  readonly #contents: readonly Content[];

  constructor(encoder: Encoder, format: PromptFormat, system: Uint32Array, contents: readonly Content[]) {
    this.#encoder = encoder;
    this.#format = format;
    this.#system = system;
    this.#contents = contents;
  }

  get turns(): number {
    return this.#contents.length;
  }

  from(first: number): Promise<Uint32Array> {
    return this.#joined(this.#system, this.#contents.slice(first));
  }

  /** The same, with `excess` tokens fewer: out of the middle of the longest of system text and last message. */
  async cutFrom(first: number, excess: number): Promise<Uint32Array> {
    const contents = this.#contents.slice(first);
    const last = contents.at(-1)?.tokens ?? nothing;
    const [mark = nothing] = await this.#encoder.encode([{ text: "\n[...]\n", special: false }]);
    const longest = this.#system.length > last.length ? this.#system : last;
    const keep = longest.length - excess - mark.length;
    if (keep < 0) {
      throw new EngineError("badRequest", "The question is longer than the model can read: ask a shorter one.");
    }
    const shorter = joined([
      longest.subarray(0, keep >> 1),
      mark,
      longest.subarray(longest.length - (keep - (keep >> 1))),
    ]);
    if (longest === this.#system) return this.#joined(shorter, contents);
    return this.#joined(this.#system, [...contents.slice(0, -1), { role: "user", tokens: shorter }]);
  }

  async #joined(system: Uint32Array, contents: readonly Content[]): Promise<Uint32Array> {
    const { template } = this.#format;
    const marks = await this.#encoder.encode(
      [template.opening, ...template.between(contents.map(({ role }) => role))].map((text) => ({
        text,
        special: true,
      })),
    );
    const texts = [system, ...contents.map(({ tokens }) => tokens)];
    return joined(marks.flatMap((mark, at) => [mark, texts[at] ?? nothing]));
  }
}
