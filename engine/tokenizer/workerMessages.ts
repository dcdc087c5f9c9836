/**
 * What passes between Tokenizer and its worker.
 */

import type { ErrorKind } from "../protocol";
import type { VocabularyLines } from "./lines";
import type { TokenBytes } from "../native/addon";

export interface WorkerStart {
  readonly modelPath: string;
  readonly addonPath: string;
}

export interface EncodeInput {
  readonly text: string;
  /** Whether special tokens such as `<|im_end|>` are recognised in `text`. Never for text that a user or a file wrote. */
  readonly special: boolean;
}

export type ToWorker =
  | { readonly kind: "encode"; readonly job: number; readonly inputs: readonly EncodeInput[] }
  | { readonly kind: "cancel"; readonly job: number };

export interface TokenizerFacts {
  readonly tokenBytes: TokenBytes;
  readonly lines: VocabularyLines;
  /** Text and id of control and user-defined tokens. */
  readonly special: readonly (readonly [string, number])[];
  readonly controlIds: readonly number[];
  readonly eosIds: readonly number[];
  readonly bosId: number | undefined;
  readonly chatTemplate: string;
}

export type FromWorker =
  | { readonly kind: "ready"; readonly facts: TokenizerFacts }
  | { readonly kind: "failed"; readonly error: ErrorKind; readonly message: string }
  | { readonly kind: "encoded"; readonly job: number; readonly ids: readonly Uint32Array[] };
