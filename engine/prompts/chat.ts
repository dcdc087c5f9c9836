/**
 * A conversation → the tail that follows header and segments.
 */

import type { ChatMessage } from "../protocol";
import type { Tokenizer } from "../tokenizer/tokenizer";
import type { PromptFormat } from "./format";

export interface ChatTailOptions {
  readonly messages: readonly ChatMessage[];
  /** Most tokens of the tail, the answer not counted. */
  readonly tokensMax: number;
}

export interface ChatTail {
  readonly tokens: Uint32Array;
  /** Oldest messages that did not fit. System messages and the last message always stay; the longest of them is cut in its middle when they alone do not fit. */
  readonly dropped: number;
  readonly cut: boolean;
}

/** `messages` ends with a user message, else EngineError `badRequest`. */
export declare function chatTail(
  tokenizer: Tokenizer,
  format: PromptFormat,
  options: ChatTailOptions,
): Promise<ChatTail>;
