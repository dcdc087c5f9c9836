import { expect, it } from "vitest";
import type { GgufMetadata } from "../../../../engine/native/addon";
import { ggufEncoder } from "../../../../engine/tokenizer/ggufEncoder";
import { tokenTypes, vocabularyOfGguf } from "../../../../engine/tokenizer/vocabulary";

function metadata(change: { scalars?: GgufMetadata["scalars"]; arrays?: GgufMetadata["arrays"] } = {}): GgufMetadata {
  return {
    scalars: {
      "tokenizer.ggml.model": "gpt2",
      "tokenizer.ggml.pre": "qwen2",
      "tokenizer.ggml.eos_token_id": 4,
      ...change.scalars,
    },
    arrays: {
      "tokenizer.ggml.tokens": ["a", "b", "ab", "<|fim_prefix|>", "<|im_end|>", "<tool>", "</s>"],
      "tokenizer.ggml.token_type": [1, 1, 1, 4, 3, 4, 1],
      "tokenizer.ggml.merges": ["a b"],
      ...change.arrays,
    },
  };
}

it("takes marks that a file calls user-defined for control tokens, and text that looks like an end for text", () => {
  const { types, eosIds } = vocabularyOfGguf(metadata());
  expect([...types]).toEqual([1, 1, 1, tokenTypes.control, tokenTypes.control, tokenTypes.userDefined, 1]);
  expect(eosIds).toEqual([4]);
});

it.each([
  ["another kind of vocabulary", { scalars: { "tokenizer.ggml.model": "bert" } }, "modelUnsupported"],
  ["no tokens", { arrays: { "tokenizer.ggml.tokens": [] } }, "modelBroken"],
  ["tokens that are no text", { arrays: { "tokenizer.ggml.tokens": [1, 2] } }, "modelBroken"],
  ["types that do not match", { arrays: { "tokenizer.ggml.token_type": [1] } }, "modelBroken"],
  [
    "no end",
    { scalars: { "tokenizer.ggml.eos_token_id": 99 }, arrays: { "tokenizer.ggml.token_type": [1, 1, 1, 1, 1, 1, 1] } },
    "modelBroken",
  ],
] as const)("refuses %s", (_, change, kind) => {
  expect(() => vocabularyOfGguf(metadata(change as Parameters<typeof metadata>[0]))).toThrow(
    expect.objectContaining({ kind }) as Error,
  );
});

it("refuses a way of cutting words that it does not know, by name", () => {
  const vocabulary = vocabularyOfGguf(metadata({ scalars: { "tokenizer.ggml.pre": "brand-new" } }));
  expect(() => ggufEncoder(vocabulary)).toThrow(/"brand-new"/);
});

it("finds marks only where they are asked for", () => {
  const encoder = ggufEncoder(vocabularyOfGguf(metadata()));
  expect([...encoder.encodeAtOnce("ab<|im_end|>a<tool>", true)]).toEqual([2, 4, 0, 5]);
  expect([...encoder.encodeAtOnce("ab<|im_end|>a<tool>", false)]).not.toContain(4);
  expect([...encoder.encodeAtOnce("", true)]).toEqual([]);
});
