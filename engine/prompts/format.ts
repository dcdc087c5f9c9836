/**
 * What a model's vocabulary and chat template allow, decided once per model.
 */

import type { CompletionOrder } from "../native/addon";
import type { EncodeInput, Tokenizer } from "../tokenizer/tokenizer";
import { chatTemplate, type ChatTemplate } from "./template";

/** A prompt before it is encoded: pieces, of which only ours may hold special tokens. */
export type Pieces = readonly EncodeInput[];

export interface PromptFormat {
  readonly template: ChatTemplate;
  /** Text of the token that begins every sequence, "" when the model wants none. */
  readonly bos: string;
  /** Token texts, "" where the vocabulary has none and plain words are used. */
  readonly repoName: string;
  readonly fileSep: string;
  /** Undefined for a model that was not taught to fill in the middle. */
  readonly fim: FimFormat | undefined;
  /** What a prompt with those marks shows first. */
  readonly completionOrder: CompletionOrder;
  /** Ids that end an answer. */
  readonly answerStopIds: readonly number[];
  /** Ids that end a completion: also the marks of files and FIM. */
  readonly completionStopIds: readonly number[];
}

/** Token texts. */
export interface FimFormat {
  readonly prefix: string;
  readonly suffix: string;
  readonly middle: string;
}

/** What a prompt needs of a tokenizer to be shaped; encoding comes later. */
export type Vocabulary = Pick<Tokenizer, "id" | "markText" | "bosId" | "eosIds" | "chatTemplate">;

const repoNames = ["<|repo_name|>", "<repo_name>", "<reponame>"];
const fileSeps = ["<|file_sep|>", "<file_sep>"];
const fims: readonly FimFormat[] = [
  { prefix: "<|fim_prefix|>", suffix: "<|fim_suffix|>", middle: "<|fim_middle|>" },
  { prefix: "<fim_prefix>", suffix: "<fim_suffix>", middle: "<fim_middle>" },
  { prefix: "<｜fim▁begin｜>", suffix: "<｜fim▁hole｜>", middle: "<｜fim▁end｜>" },
];

/** All families we know are taught the prefix first; who was taught otherwise says so. */
export function promptFormat(vocabulary: Vocabulary, completionOrder: CompletionOrder = "prefix-first"): PromptFormat {
  const has = (name: string): boolean => vocabulary.id(name) !== undefined;
  const repoName = repoNames.find(has) ?? "";
  const fileSep = fileSeps.find(has) ?? "";
  const fim = fims.find(({ prefix, suffix, middle }) => has(prefix) && has(suffix) && has(middle));
  const fimMarks = fim === undefined ? [] : [fim.prefix, fim.suffix, fim.middle];
  const marks = [repoName, fileSep, ...fimMarks, "<|fim_pad|>", "<fim_pad>", "<|im_start|>"];
  const markIds = marks.flatMap((mark) => vocabulary.id(mark) ?? []);
  const bos = vocabulary.markText(vocabulary.bosId);
  return {
    template: chatTemplate(vocabulary.chatTemplate, { bos, eos: vocabulary.markText(vocabulary.eosIds[0]) }),
    bos,
    repoName,
    fileSep,
    fim,
    completionOrder,
    answerStopIds: vocabulary.eosIds,
    completionStopIds: [...new Set([...vocabulary.eosIds, ...markIds])],
  };
}
