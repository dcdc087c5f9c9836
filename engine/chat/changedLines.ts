/** Two states of a file, as tokens → the lines that differ. Pure. */

import { countLines, type VocabularyLines } from "../tokenizer/lines";

export interface ChangedLines {
  /** Lines of the earlier state, from 1, inclusive; the end lies before the start when none was replaced. */
  readonly oldStart: number;
  readonly oldEnd: number;
  readonly newStart: number;
  readonly newEnd: number;
  /** Of the later state: whole lines. */
  readonly tokens: Uint32Array;
}

/** One stretch, from the first difference to the last. */
export function changedLines(before: Uint32Array, after: Uint32Array, lines: VocabularyLines): ChangedLines {
  const most = Math.min(before.length, after.length);
  let head = 0;
  while (head < most && before[head] === after[head]) head++;
  // Back to where a line begins, in both.
  while (head > 0 && lines.endsLine[before[head - 1] ?? 0] !== 1) head--;
  let tail = 0;
  while (tail < most - head && before[before.length - 1 - tail] === after[after.length - 1 - tail]) tail++;
  // What follows a stretch begins on a line of its own.
  while (tail > 0 && !beginsLine(before, before.length - tail, lines)) tail--;
  while (tail > 0 && !beginsLine(after, after.length - tail, lines)) tail--;
  const oldStart = 1 + countLines(lines, before, 0, head);
  const newStart = oldStart;
  return {
    oldStart,
    oldEnd: oldStart + countLines(lines, before, head, before.length - tail) - 1,
    newStart,
    newEnd: newStart + countLines(lines, after, head, after.length - tail) - 1,
    tokens: after.subarray(head, after.length - tail),
  };
}

function beginsLine(tokens: Uint32Array, at: number, lines: VocabularyLines): boolean {
  return at === 0 || lines.endsLine[tokens[at - 1] ?? 0] === 1;
}
