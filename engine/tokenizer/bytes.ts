/**
 * The flat table of every token's bytes, from which text is decoded without the vocabulary.
 */

import type { TokenBytes } from "../native/addon";
import { tokenTypes } from "./vocabulary";

export function tokenBytesTable(
  tokens: readonly string[],
  types: Uint8Array,
  bytesOf: (token: string) => Uint8Array,
): TokenBytes {
  const offsets = new Uint32Array(tokens.length + 1);
  let bytes = new Uint8Array(tokens.length * 8);
  let end = 0;
  tokens.forEach((token, id) => {
    const part = partOf(token, types[id] ?? tokenTypes.unused, bytesOf);
    if (end + part.length > bytes.length) {
      const longer = new Uint8Array(2 * (end + part.length));
      longer.set(bytes);
      bytes = longer;
    }
    bytes.set(part, end);
    end += part.length;
    offsets[id + 1] = end;
  });
  return { bytes: bytes.slice(0, end), offsets };
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
const characterOfByte: readonly string[] = (() => {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    return String.fromCharCode(printable ? byte : next++);
  });
})();

const notInAlphabet = -1;
const alphabetEnd = 0x144;
/** By code unit. */
const byteOfCharacter: Int16Array = (() => {
  const bytes = new Int16Array(alphabetEnd).fill(notInAlphabet);
  characterOfByte.forEach((character, byte) => (bytes[character.charCodeAt(0)] = byte));
  return bytes;
})();

/** Text as that alphabet writes its UTF-8. */
export function byteLevelText(text: string): string {
  let written = "";
  for (const byte of utf8.encode(text)) written += characterOfByte[byte] ?? "";
  return written;
}

/** Bytes of a token in that alphabet; a token with a character outside of it counts as its own UTF-8. */
export function byteLevelBytes(token: string): Uint8Array {
  const bytes = new Uint8Array(token.length);
  for (let at = 0; at < token.length; at++) {
    const byte = byteOfCharacter[token.charCodeAt(at)] ?? notInAlphabet;
    if (byte === notInAlphabet) return utf8.encode(token);
    bytes[at] = byte;
  }
  return bytes;
}

/** Bytes of a SentencePiece token, which writes a space as U+2581. */
export function sentencePieceBytes(token: string): Uint8Array {
  return utf8.encode(token.replaceAll("\u2581", " "));
}
