/**
 * The text around a cursor → the tail that asks for what is missing there.
 */

import type { Tokenizer } from "../tokenizer/tokenizer";
import type { PromptFormat } from "./format";

export interface CompletionTailOptions {
  /** Relative to the root, with forward slashes. */
  readonly path: string;
  readonly prefix: string;
  readonly suffix: string;
  readonly prefixTokensMax: number;
  readonly suffixTokensMax: number;
}

export interface CompletionTail {
  readonly tokens: Uint32Array;
  /** Line of the file, from 0, on which the live window begins, and the one on which it ends (inclusive). */
  readonly windowStartLine: number;
  readonly windowEndLine: number;
  /** False when the model knows no fill-in-the-middle and sees the prefix alone. */
  readonly usesSuffix: boolean;
}

export declare function completionTail(
  tokenizer: Tokenizer,
  format: PromptFormat,
  options: CompletionTailOptions,
): Promise<CompletionTail>;
