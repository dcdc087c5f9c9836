/**
 * Cuts text into words that merge independently of each other. Pure.
 */

/** Longer words are cut here, so that time stays bounded whatever a file holds; llama.cpp does not cut. */
export const wordCharactersMax = 1 << 18;

/** Long text is encoded in chunks of about this size, between which other work gets its turn. */
export const chunkCharacters = 1 << 16;

/**
 * Letters and digits that came with Unicode 16 and 17. llama.cpp's tables are of version 15.1 and take them for symbols; the regular expressions here
 * know whatever version this Node was built with.
 */
const newer =
  "\u{88f}\u{c5c}\u{cdc}\u{1c89}-\u{1c8a}\u{a7cb}-\u{a7cf}\u{a7d2}\u{a7d4}\u{a7da}-\u{a7dc}\u{a7f1}" +
  "\u{105c0}-\u{105f3}\u{10940}-\u{10959}\u{10d40}-\u{10d65}\u{10d6f}-\u{10d85}\u{10ec2}-\u{10ec7}\u{11380}-\u{11389}\u{1138b}" +
  "\u{1138e}\u{11390}-\u{113b5}\u{113b7}\u{113d1}\u{113d3}\u{116d0}-\u{116e3}\u{11bc0}-\u{11be0}\u{11bf0}-\u{11bf9}" +
  "\u{11db0}-\u{11ddb}\u{11de0}-\u{11de9}\u{13460}-\u{143fa}\u{16100}-\u{1611d}\u{16130}-\u{16139}\u{16d40}-\u{16d6c}" +
  "\u{16d70}-\u{16d79}\u{16ea0}-\u{16eb8}\u{16ebb}-\u{16ed3}\u{16ff2}-\u{16ff6}\u{187f8}-\u{187ff}\u{18cff}" +
  "\u{18d09}-\u{18d1e}\u{18d80}-\u{18df2}\u{1ccf0}-\u{1ccf9}\u{1e5d0}-\u{1e5ed}\u{1e5f0}-\u{1e5fa}\u{1e6c0}-\u{1e6de}" +
  "\u{1e6e0}-\u{1e6e2}\u{1e6e4}-\u{1e6e5}\u{1e6e7}-\u{1e6ed}\u{1e6f0}-\u{1e6f4}\u{1e6fe}-\u{1e6ff}" +
  "\u{2b73a}-\u{2b73f}\u{2cea2}-\u{2cead}\u{323b0}-\u{33479}";
const newerCharacter = new RegExp(`[${newer}]`, "gu");

/** Applies the patterns in order; the text between matches stays as pieces of its own. */
export function cutWords(text: string, patterns: readonly RegExp[]): string[] {
  // Symbols of the same length stand in for the newer characters while the borders are sought.
  const shown = text.replace(newerCharacter, (character) => (character.length === 1 ? "\u2603" : "\u{1f4a7}"));
  let ends = [0, text.length];
  for (const pattern of patterns) {
    const finer: number[] = [0];
    for (let at = 1; at < ends.length; at++) addEnds(shown, ends[at - 1] ?? 0, ends[at] ?? 0, pattern, finer);
    ends = finer;
  }
  return ends.slice(1).map((end, at) => text.slice(ends[at], end));
}

/** Adds where the words of `shown[start..end)` end. */
function addEnds(shown: string, start: number, end: number, pattern: RegExp, into: number[]): void {
  const piece = start === 0 && end === shown.length ? shown : shown.slice(start, end);
  let at = 0;
  for (const match of piece.matchAll(pattern)) {
    if (match.index > at) into.push(start + match.index);
    at = match.index + match[0].length;
    if (match[0].length > 0) into.push(start + at);
  }
  if (at < piece.length) into.push(end);
}

/**
 * Chunks whose words, put together, are the words of the whole text. A chunk ends between a letter or digit and white space, which no
 * pattern of preTokenizers.ts spans; without such a place it goes on to `wordCharactersMax`.
 */
export function* chunksOf(text: string): Generator<string> {
  let start = 0;
  while (text.length - start > chunkCharacters) {
    const end = chunkEnd(text, start + chunkCharacters);
    yield text.slice(start, end);
    start = end;
  }
  if (start < text.length || text.length === 0) yield text.slice(start);
}

function chunkEnd(text: string, from: number): number {
  const seam = /[A-Za-z0-9](?=[ \t\r\n])/g;
  seam.lastIndex = from - 1;
  const found = seam.exec(text);
  const end = found === null ? text.length : found.index + 1;
  return end - from > wordCharactersMax ? wholeCharacterEnd(text, from + wordCharactersMax) : end;
}

/** Words of at most `wordCharactersMax` characters. */
export function* boundedWords(word: string): Generator<string> {
  let start = 0;
  while (word.length - start > wordCharactersMax) {
    const end = wholeCharacterEnd(word, start + wordCharactersMax);
    yield word.slice(start, end);
    start = end;
  }
  yield word.slice(start);
}

/** `at`, or one less where that would part a surrogate pair. */
function wholeCharacterEnd(text: string, at: number): number {
  const before = text.charCodeAt(at - 1);
  return before >= 0xd800 && before <= 0xdbff ? at - 1 : at;
}
