/**
 * SentencePiece vocabularies of the Llama family, merged as llama.cpp does: among all neighbours whose union is a token, the best score first, the
 * leftmost of equals. The library's BPE ranks pairs rather than results, which orders some of these differently.
 */

import { tokenTypes, type GgufVocabulary } from "./vocabulary";

/** Neighbouring symbols that would make a token. */
interface Union {
  readonly left: number;
  readonly right: number;
  readonly score: number;
  /** Length of the union when it was queued; when its symbols have grown since, it is out of date. */
  readonly length: number;
}

/** Symbols as a doubly linked list over text: `text[start..start + length)`; length 0 once merged away. */
interface Symbols {
  readonly start: Int32Array;
  readonly length: Int32Array;
  readonly before: Int32Array;
  readonly after: Int32Array;
}

/** The function expects one text and gives its ids; a space is put before the text when the vocabulary wants it. */
export function sentencePieceEncoder(vocabulary: GgufVocabulary): (text: string) => number[] {
  const idOf = textIds(vocabulary);
  const byteIds = byteTokenIds(vocabulary);
  const utf8 = new TextEncoder();

  return (plain) => {
    const text = (vocabulary.addSpacePrefix ? ` ${plain}` : plain).replaceAll(" ", "\u2581");
    const symbols = symbolsOf(text);
    mergeAll(text, symbols, (piece) => {
      const id = idOf.get(piece);
      return id === undefined ? undefined : vocabulary.scores[id];
    });
    const ids: number[] = [];
    for (let at = 0; at < symbols.start.length; at++) {
      const length = symbols.length[at] ?? 0;
      if (length === 0) continue;
      const start = symbols.start[at] ?? 0;
      const piece = text.slice(start, start + length);
      const id = idOf.get(piece);
      if (id !== undefined) ids.push(id);
      else for (const byte of utf8.encode(piece)) ids.push(...(byteIds.get(byte) ?? []));
    }
    return ids;
  };
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

/** One symbol for each code point. */
function symbolsOf(text: string): Symbols {
  const starts: number[] = [];
  for (let at = 0; at < text.length; at += (text.codePointAt(at) ?? 0) > 0xffff ? 2 : 1) starts.push(at);
  const count = starts.length;
  return {
    start: Int32Array.from(starts),
    length: Int32Array.from(starts, (start, index) => (starts[index + 1] ?? text.length) - start),
    before: Int32Array.from(starts, (_, index) => index - 1),
    after: Int32Array.from(starts, (_, index) => (index + 1 < count ? index + 1 : -1)),
  };
}

function mergeAll(text: string, symbols: Symbols, scoreOf: (piece: string) => number | undefined): void {
  const { start, length, before, after } = symbols;
  const queue: Union[] = [];
  const offer = (left: number, right: number): void => {
    if (left < 0 || right < 0) return;
    const from = start[left] ?? 0;
    const total = (length[left] ?? 0) + (length[right] ?? 0);
    const score = scoreOf(text.slice(from, from + total));
    if (score !== undefined) push(queue, { left, right, score, length: total });
  };
  for (let at = 1; at < start.length; at++) offer(at - 1, at);
  for (let best = pop(queue); best !== undefined; best = pop(queue)) {
    const { left, right } = best;
    const lengthLeft = length[left] ?? 0;
    const lengthRight = length[right] ?? 0;
    if (lengthLeft === 0 || lengthRight === 0 || lengthLeft + lengthRight !== best.length) continue;
    length[left] = best.length;
    length[right] = 0;
    const next = after[right] ?? -1;
    after[left] = next;
    if (next >= 0) before[next] = left;
    offer(before[left] ?? -1, left);
    offer(left, next);
  }
}

function goesFirst(a: Union, b: Union): boolean {
  return a.score > b.score || (a.score === b.score && a.left < b.left);
}

function push(heap: Union[], union: Union): void {
  let at = heap.length;
  heap.push(union);
  while (at > 0) {
    const parent = (at - 1) >> 1;
    const above = heap[parent];
    if (above === undefined || !goesFirst(union, above)) break;
    heap[at] = above;
    at = parent;
  }
  heap[at] = union;
}

function pop(heap: Union[]): Union | undefined {
  const first = heap[0];
  const last = heap.pop();
  if (first === undefined || last === undefined || heap.length === 0) return first;
  let at = 0;
  for (;;) {
    let child = 2 * at + 1;
    let below = heap[child];
    if (below === undefined) break;
    const other = heap[child + 1];
    if (other !== undefined && goesFirst(other, below)) {
      child += 1;
      below = other;
    }
    if (!goesFirst(below, last)) break;
    heap[at] = below;
    at = child;
  }
  heap[at] = last;
  return first;
}
