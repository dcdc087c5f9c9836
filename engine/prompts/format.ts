/**
 * What a model's vocabulary and template allow, decided once per model.
 */

import type { EncodeInput, Tokenizer } from "../tokenizer/tokenizer";

/** A prompt before it is encoded: pieces, of which only ours may hold special tokens. */
export type Pieces = readonly EncodeInput[];

export interface PromptFormat {
  /** Text before the system line and after the last of the system turn, user and assistant turns: from the chat template. */
  readonly chatTemplate: string;
  /** Token texts, "" where the vocabulary has none and plain text is used. */
  readonly repoName: string;
  readonly fileSep: string;
  readonly fim: FimFormat | undefined;
  readonly bosId: number | undefined;
  /** Ids that end an answer. */
  readonly answerStopIds: readonly number[];
  /** Ids that end a completion: also file and FIM marks. */
  readonly completionStopIds: readonly number[];
}

export interface FimFormat {
  readonly prefix: string;
  readonly suffix: string;
  readonly middle: string;
  /** Order in which the model was trained to see the two. */
  readonly order: "prefixFirst" | "suffixFirst";
}

export declare function promptFormat(tokenizer: Tokenizer): PromptFormat;
