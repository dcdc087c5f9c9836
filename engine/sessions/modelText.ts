/** Everything the features ask of a model's vocabulary and prompt format, in one object that tests can stand in for. */

import type { CompletionOrder, TokenBytes } from "../native/addon";
import { chatTail, type ChatTail, type ChatTailOptions } from "../prompts/chat";
import { completionTail, type CompletionTail, type CompletionTailOptions } from "../prompts/completion";
import { promptFormat } from "../prompts/format";
import { headerPieces } from "../prompts/header";
import { contentPiece, continuedHeaderPieces, fileHeaderPieces } from "../prompts/segment";
import type { TokenizedFile } from "../repository/segments";
import type { VocabularyLines } from "../tokenizer/lines";
import type { TextStream, Tokenizer } from "../tokenizer/tokenizer";

export interface ModelText {
  readonly lines: VocabularyLines;
  /** Never to be drawn in an answer. */
  readonly bannedIds: readonly number[];
  readonly answerStopIds: readonly number[];
  readonly completionStopIds: readonly number[];
  /** What a completion's prompt shows first. */
  readonly completionOrder: CompletionOrder;
  readonly tokenBytes: TokenBytes;
  header(repository: string): Promise<Uint32Array>;
  file(path: string, text: string, signal: AbortSignal): Promise<TokenizedFile>;
  chat(options: ChatTailOptions): Promise<ChatTail>;
  completion(options: CompletionTailOptions): Promise<CompletionTail>;
  /** Tokens of words that are nothing but text. */
  plain(text: string): Promise<Uint32Array>;
  decodeStream(): TextStream;
  dispose(): Promise<void>;
}

/** `completionOrder` is the model's, with its adapter. */
export function modelText(tokenizer: Tokenizer, completionOrder: CompletionOrder): ModelText {
  const format = promptFormat(tokenizer, completionOrder);
  const stops = new Set([...format.answerStopIds, ...format.completionStopIds]);
  return {
    lines: tokenizer.lines,
    bannedIds: tokenizer.controlIds.filter((id) => !stops.has(id)),
    answerStopIds: format.answerStopIds,
    completionStopIds: format.completionStopIds,
    completionOrder: format.completionOrder,
    tokenBytes: tokenizer.tokenTable,
    header: (repository) => tokenizer.encodeJoined(headerPieces(format, repository)),
    file: async (path, text, signal) => {
      const [headerTokens, continuedHeaderTokens, tokens] = await Promise.all([
        tokenizer.encodeJoined(fileHeaderPieces(format, path), signal),
        tokenizer.encodeJoined(continuedHeaderPieces(format, path), signal),
        tokenizer.encodeJoined([contentPiece(text)], signal),
      ]);
      return { path, headerTokens, continuedHeaderTokens, tokens };
    },
    chat: (options) => chatTail(tokenizer, format, options),
    completion: (options) => completionTail(tokenizer, format, options),
    plain: (words) => tokenizer.encodeJoined([{ text: words, special: false }]),
    decodeStream: () => tokenizer.decodeStream(),
    dispose: () => tokenizer.dispose(),
  };
}
