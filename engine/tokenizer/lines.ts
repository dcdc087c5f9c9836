/**
 * How token ids relate to lines, without decoding.
 */

export interface VocabularyLines {
  /** By id: newlines in the token's bytes (at most 255 are counted). */
  readonly newlines: Uint8Array;
  /** By id: 1 when the token's last byte is a newline, so that the next token starts a line. */
  readonly endsLine: Uint8Array;
}

/** Newlines in `tokens[start..end)`. */
export function countLines(lines: VocabularyLines, tokens: Uint32Array, start = 0, end = tokens.length): number {
  let count = 0;
  for (let at = start; at < end; at++) count += lines.newlines[tokens[at] ?? 0] ?? 0;
  return count;
}

/** From flat token bytes (id's bytes are `bytes[offsets[id]..offsets[id + 1])`). */
export function vocabularyLines(bytes: Uint8Array, offsets: Uint32Array): VocabularyLines {
  const newline = 10;
  const size = offsets.length - 1;
  const newlines = new Uint8Array(size);
  const endsLine = new Uint8Array(size);
  for (let id = 0; id < size; id++) {
    const end = offsets[id + 1] ?? 0;
    let count = 0;
    for (let at = offsets[id] ?? 0; at < end; at++) if (bytes[at] === newline) count++;
    newlines[id] = Math.min(count, 255);
    if (count > 0 && bytes[end - 1] === newline) endsLine[id] = 1;
  }
  return { newlines, endsLine };
}
