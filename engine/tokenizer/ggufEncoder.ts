/**
 * An encoder from the vocabulary of a GGUF file.
 */

import { EngineError } from "../errors";
import { byteLevelEncoder } from "./byteLevelBpe";
import { Encoder, type Scheme } from "./encoder";
import { preTokenizer, type PreTokenizer } from "./preTokenizers";
import { sentencePieceEncoder } from "./sentencePiece";
import type { GgufVocabulary } from "./vocabulary";
import { boundedWords, chunksOf, cutWords } from "./words";

export function ggufEncoder(vocabulary: GgufVocabulary): Encoder {
  if (vocabulary.spelling === "sentencePiece") {
    return new Encoder(vocabulary, sentencePieceScheme(vocabulary), vocabulary.addBos ?? true);
  }
  const cutting = preTokenizer(vocabulary.pre);
  if (cutting === undefined) {
    throw new EngineError(
      "modelUnsupported",
      `The model cuts text into words in a way that Nosa does not know ("${vocabulary.pre}"): choose another model.`,
    );
  }
  return new Encoder(vocabulary, byteLevelScheme(vocabulary, cutting), vocabulary.addBos ?? cutting.addBos);
}

function byteLevelScheme(vocabulary: GgufVocabulary, cutting: PreTokenizer): Scheme {
  const encodeWord = byteLevelEncoder(vocabulary, cutting);
  return {
    chunks: chunksOf,
    words: (chunk) => cutWords(chunk, cutting.patterns),
    encodeWord: (word) => [...boundedWords(word)].flatMap(encodeWord),
    userDefinedAnywhere: false,
  };
}

function sentencePieceScheme(vocabulary: GgufVocabulary): Scheme {
  return {
    // Merges may cross any border here, so a text is one word; its cost grows with n log n.
    chunks: (text) => [text],
    words: (chunk) => [chunk],
    encodeWord: sentencePieceEncoder(vocabulary),
    userDefinedAnywhere: true,
  };
}
