/** Which of a file's saved lines the live text around the cursor stands for. Pure. */

import type { SegmentRecord } from "../contexts/context";
import type { Place } from "../protocol";

/** Borders lie on multiples of this, so that they move seldom while the user types: each move costs a new selection. */
const gridLines = 16;

export interface LiveText {
  readonly path: string;
  readonly before: string;
  readonly after: string;
  /** Lines of it that the prompt holds. */
  readonly linesBefore: number;
  readonly linesAfter: number;
}

/** None when the file was not read. Lines that were added or removed since it was read may have moved the others by as many. */
export function liveLines(segments: readonly SegmentRecord[], live: LiveText): readonly Place[] {
  const { path, before, after, linesBefore, linesAfter } = live;
  const saved = savedLines(segments, path);
  if (saved === 0) return [];
  const cursor = lineCount(before);
  const moved = Math.abs(cursor + lineCount(after) - 1 - saved);
  const first = cursor - linesBefore - moved;
  const last = cursor + linesAfter + moved;
  const startLine = Math.max(1, Math.floor(first / gridLines) * gridLines);
  return [{ path, startLine, endLine: Math.ceil(last / gridLines) * gridLines }];
}

/** The last line of the file in what was read. */
function savedLines(segments: readonly SegmentRecord[], path: string): number {
  let last = 0;
  for (const { files, blockLines } of segments) {
    if (!files.includes(path)) continue;
    for (const spans of blockLines)
      for (const span of spans) if (span.path === path) last = Math.max(last, span.endLine);
  }
  return last;
}

function lineCount(text: string): number {
  let count = 1;
  for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) count++;
  return count;
}
