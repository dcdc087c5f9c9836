/**
 * A vocabulary as a model file states it: read from GGUF metadata, checked, and nothing more.
 */

import { EngineError } from "../errors";
import type { GgufMetadata } from "../native/addon";

/** What a token is, in GGUF's words. */
export const tokenTypes = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

export interface Vocabulary {
  readonly tokens: readonly string[];
  /** By id, one of tokenTypes. Marks that some files call user-defined, such as FIM tokens, are control tokens here. */
  readonly types: Uint8Array;
  /** How a normal token's text stands for bytes. */
  readonly spelling: "byteLevel" | "sentencePiece";
  /** Undefined when the file does not say. */
  readonly addBos: boolean | undefined;
  readonly bosId: number | undefined;
  /** At least one. */
  readonly eosIds: readonly number[];
  readonly chatTemplate: string;
}

export interface GgufVocabulary extends Vocabulary {
  /** Name of the pre-tokenizer; "" when the file names none. */
  readonly pre: string;
  /** "left right" pairs, best first; empty for SentencePiece. */
  readonly merges: readonly string[];
  /** By id; empty for BPE. */
  readonly scores: Float32Array;
  readonly addSpacePrefix: boolean;
}

/** Tokens that end a turn in the families we read, whatever the file calls them. */
export const endTokens: ReadonlySet<string> = new Set([
  "<|im_end|>",
  "<|endoftext|>",
  "<|eot_id|>",
  "<|eom_id|>",
  "<|end_of_text|>",
  "<|end|>",
  "<end_of_turn>",
  "</s>",
]);

/** Marks of files, repositories and FIM are never text, also where a file has them as user-defined. */
const markPattern = /^(<\|[^|]+\|>|<fim_\w+>|<file_sep>|<repo_name>)$/u;

const tokensMax = 2_000_000;

export function vocabularyOfGguf(metadata: GgufMetadata): GgufVocabulary {
  const { scalars } = metadata;
  const model = scalars["tokenizer.ggml.model"];
  if (model !== "gpt2" && model !== "llama") {
    throw new EngineError(
      "modelUnsupported",
      `The model's vocabulary is of kind "${String(model ?? "none")}", and Nosa reads "gpt2" and "llama": choose another model.`,
    );
  }
  const tokens = strings(metadata, "tokenizer.ggml.tokens");
  if (tokens.length === 0 || tokens.length > tokensMax) throw broken(`it has ${tokens.length} tokens`);
  const types = tokenTypesOf(metadata, tokens);
  const spelling = model === "gpt2" ? "byteLevel" : "sentencePiece";
  const merges = spelling === "byteLevel" ? strings(metadata, "tokenizer.ggml.merges") : [];
  const scores = Float32Array.from(spelling === "byteLevel" ? [] : numbers(metadata, "tokenizer.ggml.scores"));
  if (spelling === "sentencePiece" && scores.length !== tokens.length)
    throw broken("tokens and scores differ in number");
  const id = (name: string): number | undefined => {
    const value = scalars[`tokenizer.ggml.${name}`];
    return typeof value === "number" && value >= 0 && value < tokens.length ? value : undefined;
  };
  const addBos = scalars["tokenizer.ggml.add_bos_token"];
  const template = scalars["tokenizer.chat_template"];
  const pre = scalars["tokenizer.ggml.pre"];
  const named = [id("eos_token_id"), id("eot_token_id"), id("eom_token_id")].filter((end) => end !== undefined);
  return {
    spelling,
    pre: typeof pre === "string" ? pre : "",
    tokens,
    types,
    merges,
    scores,
    addSpacePrefix: scalars["tokenizer.ggml.add_space_prefix"] !== false,
    addBos: typeof addBos === "boolean" ? addBos : undefined,
    bosId: id("bos_token_id"),
    eosIds: endIds(tokens, types, named),
    chatTemplate: typeof template === "string" ? template : "",
  };
}

/** `named` and every control token that is known to end a turn; at least one, else the file is refused. */
export function endIds(tokens: readonly string[], types: Uint8Array, named: readonly number[]): readonly number[] {
  const ids = new Set(named);
  tokens.forEach((token, id) => {
    if (types[id] === tokenTypes.control && endTokens.has(token)) ids.add(id);
  });
  if (ids.size === 0) throw broken("no token ends a text");
  return [...ids];
}

/** User-defined marks become control tokens. */
export function withMarks(tokens: readonly string[], types: Uint8Array): Uint8Array {
  return types.map((type, id) =>
    type === tokenTypes.userDefined && markPattern.test(tokens[id] ?? "") ? tokenTypes.control : type,
  );
}

function tokenTypesOf(metadata: GgufMetadata, tokens: readonly string[]): Uint8Array {
  const listed = metadata.arrays["tokenizer.ggml.token_type"];
  if (listed === undefined) return new Uint8Array(tokens.length).fill(tokenTypes.normal);
  if (listed.length !== tokens.length) throw broken("tokens and token types differ in number");
  return withMarks(tokens, Uint8Array.from(numbers(metadata, "tokenizer.ggml.token_type")));
}

function strings(metadata: GgufMetadata, name: string): readonly string[] {
  const list = metadata.arrays[name] ?? [];
  return list.map((value) => {
    if (typeof value !== "string") throw broken(`${name} is not a list of texts`);
    return value;
  });
}

function numbers(metadata: GgufMetadata, name: string): readonly number[] {
  const list = metadata.arrays[name] ?? [];
  return list.map((value) => {
    if (typeof value !== "number") throw broken(`${name} is not a list of numbers`);
    return value;
  });
}

function broken(why: string): EngineError {
  return new EngineError("modelBroken", `The model's vocabulary is damaged (${why}): fetch the model again.`);
}
