/**
 * SentencePiece vocabularies of the Llama family, as llama.cpp encodes them: neighbours whose union is a token unite, the best score first.
 */

import { mergeSymbols } from "./merging";
import { tokenTypes, type GgufVocabulary } from "./vocabulary";

/** The function expects one text and gives its ids; a space is put before the text when the vocabulary wants it. */
export function sentencePieceEncoder(vocabulary: GgufVocabulary): (text: string) => number[] {
  const idOf = textIds(vocabulary);
  const byteIds = byteTokenIds(vocabulary);
  const utf8 = new TextEncoder();

  return (plain) => {
    const text = (vocabulary.addSpacePrefix ? ` ${plain}` : plain).replaceAll(" ", "\u2581");
    const borders = mergeSymbols(characterBorders(text), (start, _, end) => {
      const id = idOf.get(text.slice(start, end));
      return id === undefined ? undefined : -(vocabulary.scores[id] ?? 0);
    });
    const ids: number[] = [];
    for (let at = 1; at < borders.length; at++) {
      const piece = text.slice(borders[at - 1], borders[at]);
      const id = idOf.get(piece);
      if (id !== undefined) ids.push(id);
      else for (const byte of utf8.encode(piece)) ids.push(...(byteIds.get(byte) ?? []));
    }
    return ids;
  };
}

function characterBorders(text: string): readonly number[] {
  const borders = [0];
  for (let at = 0; at < text.length;) {
    at += (text.codePointAt(at) ?? 0) > 0xffff ? 2 : 1;
    borders.push(at);
  }
  return borders;
}

function textIds(vocabulary: GgufVocabulary): ReadonlyMap<string, number> {
  const ids = new Map<string, number>();
  vocabulary.tokens.forEach((token, id) => {
    const type = vocabulary.types[id];
    // Control tokens and bytes are never spelt by text.
    if (type === tokenTypes.normal || type === tokenTypes.userDefined) ids.set(token, id);
  });
  return ids;
}

function byteTokenIds(vocabulary: GgufVocabulary): ReadonlyMap<number, readonly number[]> {
  const ids = new Map<number, readonly number[]>();
  vocabulary.tokens.forEach((token, id) => {
    if (vocabulary.types[id] !== tokenTypes.byte) return;
    const hex = /^<0x([0-9A-Fa-f]{2})>$/.exec(token)?.[1];
    if (hex !== undefined) ids.set(Number.parseInt(hex, 16), [id]);
  });
  return ids;
}
