import { expect, it } from "vitest";
import { sentencePieceEncoder } from "../../../../engine/tokenizer/sentencePiece";
import { tokenTypes, vocabularyOfGguf, type GgufVocabulary } from "../../../../engine/tokenizer/vocabulary";
import { random, testSeed } from "../../../support/random";

const bytes = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
const words = ["▁", "a", "b", "c", "ab", "bc", "▁a", "abc", "aa", "aab", "▁ab", "cc"];
// A better word has a higher score; "aa" and "cc" are equals.
const scores = [-20, -21, -22, -23, -3, -2, -5, -9, -4, -6, -7, -4];

function vocabulary(addSpacePrefix: boolean): GgufVocabulary {
  const tokens = ["<unk>", "<s>", "</s>", ...bytes, ...words];
  const types = [
    tokenTypes.unknown,
    tokenTypes.control,
    tokenTypes.control,
    ...bytes.map(() => tokenTypes.byte),
    ...words.map(() => tokenTypes.normal),
  ];
  return vocabularyOfGguf({
    scalars: {
      "tokenizer.ggml.model": "llama",
      "tokenizer.ggml.eos_token_id": 2,
      "tokenizer.ggml.add_space_prefix": addSpacePrefix,
    },
    arrays: {
      "tokenizer.ggml.tokens": tokens,
      "tokenizer.ggml.token_type": types,
      "tokenizer.ggml.scores": [0, 0, 0, ...bytes.map(() => 0), ...scores],
    },
  });
}

/** Merges step by step, looking at all neighbours each time: slow, and plain to see through. */
function reference(text: string, { tokens, scores: all }: GgufVocabulary): string[] {
  const pieces = [...text.replaceAll(" ", "▁")];
  for (;;) {
    let best = -1;
    let bestScore = Number.NEGATIVE_INFINITY;
    for (let at = 0; at + 1 < pieces.length; at++) {
      const id = tokens.indexOf(`${pieces[at] ?? ""}${pieces[at + 1] ?? ""}`);
      const score = id < 0 ? Number.NEGATIVE_INFINITY : (all[id] ?? 0);
      if (score > bestScore) {
        best = at;
        bestScore = score;
      }
    }
    if (best < 0) return pieces;
    pieces.splice(best, 2, `${pieces[best] ?? ""}${pieces[best + 1] ?? ""}`);
  }
}

it("merges the best score first and the leftmost of equals, as one who tries all would", () => {
  const plain = vocabulary(false);
  const encode = sentencePieceEncoder(plain);
  const draw = random(testSeed());
  for (let round = 0; round < 500; round++) {
    const text = Array.from({ length: draw.between(0, 40) }, () => draw.pick(["a", "b", "c", " "])).join("");
    expect(encode(text).map((id) => plain.tokens[id])).toEqual(reference(text, plain));
  }
});

it("spells what no token stands for in bytes, and puts a space before where asked", () => {
  const spaced = vocabulary(true);
  const ids = sentencePieceEncoder(spaced)("aé");
  expect(ids.map((id) => spaced.tokens[id])).toEqual(["▁a", "<0xC3>", "<0xA9>"]);
});

it("never spells a control token", () => {
  const ids = sentencePieceEncoder(vocabulary(false))("</s><s>");
  expect(ids.some((id) => id === 1 || id === 2)).toBe(false);
});
