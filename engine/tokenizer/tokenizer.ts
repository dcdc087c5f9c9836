/**
 * Text ⇄ token ids of one model, equal to llama.cpp's. Encoding runs in a worker thread; decoding needs only a table and runs here.
 */

import type { VocabularyLines } from "./lines";

export interface EncodeInput {
  readonly text: string;
  /** Whether special tokens such as `<|im_end|>` are recognised in `text`. Never for text that a user or a file wrote. */
  readonly special: boolean;
}

export interface TokenizerOptions {
  /** The native addon, whose `ggufMetadata` reads the vocabulary of a GGUF file. */
  readonly addonPath: string;
  /** The bundled tokenizerWorker.ts. */
  readonly workerPath: string;
}

export declare class Tokenizer {
  /**
   * Reads the vocabulary of a GGUF file or of a folder with `tokenizer.json`. Rejects with EngineError `modelMissing`, `modelBroken`, or
   * `modelUnsupported` when the kind of vocabulary is not one we know to encode exactly.
   */
  static open(modelPath: string, options: TokenizerOptions): Promise<Tokenizer>;

  readonly vocabSize: number;
  /** Jinja source of the model's chat template, "" when it has none. */
  readonly chatTemplate: string;
  /** Ids that end a turn or a text; at least one. */
  readonly eosIds: readonly number[];
  /** Ids of control tokens: no answer shows them. */
  readonly controlIds: readonly number[];
  /** Begin-of-text id when the model wants one at the very start of a sequence (the header adds it), else undefined. */
  readonly bosId: number | undefined;
  readonly lines: VocabularyLines;

  /** Id of a token by its exact text, such as "<|file_sep|>"; undefined when the vocabulary lacks it. */
  id(name: string): number | undefined;
  /** One array of ids for each input. Rejects after `dispose`, and with Cancelled when `signal` is aborted before it ran. */
  encode(inputs: readonly EncodeInput[], signal?: AbortSignal): Promise<Uint32Array[]>;
  /** Encodes each input apart (no merge crosses a border) and joins the ids. */
  encodeJoined(inputs: readonly EncodeInput[], signal?: AbortSignal): Promise<Uint32Array>;
  /** A view of the token's bytes; empty for control tokens and for ids out of range. */
  tokenBytes(id: number): Uint8Array;
  /** All ids at once; incomplete UTF-8 becomes U+FFFD. */
  decode(ids: Iterable<number>): string;
  decodeStream(): TextStream;
  dispose(): Promise<void>;
}

/** Ids in, text out; holds back bytes of a character that is not complete. */
export interface TextStream {
  /** The text that became complete with `id`; "" while a character waits for more bytes. */
  push(id: number): string;
  /** What was held back, as U+FFFD; "" when nothing was. */
  end(): string;
}
