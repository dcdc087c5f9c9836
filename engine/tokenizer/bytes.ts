/**
 * The flat table of every token's bytes, from which text is decoded without the vocabulary.
 */

import { tokenTypes } from "./vocabulary";

export interface TokenBytes {
  /** Bytes of token `id` are `bytes[offsets[id]..offsets[id + 1])`. Control and unused tokens have none. */
  readonly bytes: Uint8Array;
  /** One more than there are tokens. */
  readonly offsets: Uint32Array;
}

export function tokenBytesTable(
  tokens: readonly string[],
  types: Uint8Array,
  bytesOf: (token: string) => Uint8Array,
): TokenBytes {
  const offsets = new Uint32Array(tokens.length + 1);
  const parts = tokens.map((token, id) => {
    const part = partOf(token, types[id] ?? tokenTypes.unused, bytesOf);
    offsets[id + 1] = (offsets[id] ?? 0) + part.length;
    return part;
  });
  const bytes = new Uint8Array(offsets[tokens.length] ?? 0);
  parts.forEach((part, id) => bytes.set(part, offsets[id]));
  return { bytes, offsets };
}

const nothing = new Uint8Array();
const utf8 = new TextEncoder();

function partOf(token: string, type: number, bytesOf: (token: string) => Uint8Array): Uint8Array {
  switch (type) {
    case tokenTypes.control:
    case tokenTypes.unused:
    case tokenTypes.unknown:
      return nothing;
    case tokenTypes.userDefined:
      return utf8.encode(token);
    case tokenTypes.byte:
      return byteOf(token);
    default:
      return bytesOf(token);
  }
}

/** `<0x0A>` stands for one byte. */
function byteOf(token: string): Uint8Array {
  const hex = /^<0x([0-9A-Fa-f]{2})>$/.exec(token)?.[1];
  return hex === undefined ? utf8.encode(token) : Uint8Array.of(Number.parseInt(hex, 16));
}

/** The alphabet in which byte-level vocabularies write bytes: printable ones as themselves, the rest from U+0100 on, in order. */
const byteOfCharacter: ReadonlyMap<number, number> = (() => {
  const map = new Map<number, number>();
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    map.set(printable ? byte : next++, byte);
  }
  return map;
})();

/** Bytes of a token in that alphabet; a character outside of it counts as its own UTF-8. */
export function byteLevelBytes(token: string): Uint8Array {
  const bytes: number[] = [];
  for (const character of token) {
    const byte = byteOfCharacter.get(character.codePointAt(0) ?? 0);
    if (byte === undefined) bytes.push(...utf8.encode(character));
    else bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}

/** Bytes of a SentencePiece token, which writes a space as U+2581. */
export function sentencePieceBytes(token: string): Uint8Array {
  return utf8.encode(token.replaceAll("\u2581", " "));
}
