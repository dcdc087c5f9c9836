/**
 * How a file begins inside a segment.
 */

import type { Pieces, PromptFormat } from "./format";

/** `<|file_sep|>path\n`. A path with control characters is escaped. */
export declare function fileHeaderPieces(format: PromptFormat, path: string): Pieces;
/** The same for every part of a long file but the first. The mark names no number, so that an edit above changes no later part. */
export declare function continuedHeaderPieces(format: PromptFormat, path: string): Pieces;
/** Content as it goes into a segment: no special tokens, ends in one newline at least. */
export declare function contentPiece(text: string): Pieces[number];
