/**
 * How a file begins inside a segment.
 */

import type { Pieces, PromptFormat } from "./format";
import { oneLine } from "./header";

/** `<|file_sep|>path\n`. Control characters of a path are escaped. */
export function fileHeaderPieces({ fileSep }: PromptFormat, path: string): Pieces {
  return [
    { text: fileSep === "" ? "File: " : fileSep, special: true },
    { text: `${oneLine(path)}\n`, special: false },
  ];
}

/** The same for every part of a long file but the first. The mark names no number, so that an edit above changes no later part. */
export function continuedHeaderPieces(format: PromptFormat, path: string): Pieces {
  return fileHeaderPieces(format, `${path} (continued)`);
}

/** Content as it goes into a segment: no special tokens, ends in a newline. */
export function contentPiece(text: string): Pieces[number] {
  return { text: text.endsWith("\n") ? text : `${text}\n`, special: false };
}
