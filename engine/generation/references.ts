/**
 * Attention masses → the lines of files that an answer drew on. Pure.
 *
 * The first block of a segment attracts attention for being first, as the header's does: blocks are therefore compared
 * with others of their rank (first blocks with first blocks, the rest with the rest), and what lies above the average
 * of its rank counts. Attended sequence 0 is the header and names no file.
 */

import type { BlockMass } from "../native/addon";
import type { Reference } from "../protocol";
import type { BlockSpan } from "../repository/segments";

export interface AttendedSegment {
  readonly blockLines: readonly (readonly BlockSpan[])[];
}

/** Ranges of one file that are this close to each other are shown as one. */
const gapLinesMax = 2;

interface Range {
  readonly path: string;
  startLine: number;
  endLine: number;
  excess: number;
  mass: number;
}

/** Best first, at most `countMax`. `segments[i]` is attended sequence i + 1. */
export function references(
  masses: readonly BlockMass[],
  segments: readonly AttendedSegment[],
  countMax: number,
): readonly Reference[] {
  const received = masses.filter(({ sequence, block }) => segments[sequence - 1]?.blockLines[block] !== undefined);
  const total = sum(received.map(({ mass }) => mass));
  if (total <= 0) return [];
  const firstCount = segments.filter(({ blockLines }) => blockLines.length > 0).length;
  const restCount = sum(segments.map(({ blockLines }) => Math.max(0, blockLines.length - 1)));
  const firstAverage =
    sum(received.filter(({ block }) => block === 0).map(({ mass }) => mass)) / Math.max(1, firstCount);
  const restAverage = sum(received.filter(({ block }) => block > 0).map(({ mass }) => mass)) / Math.max(1, restCount);

  const ranges: Range[] = [];
  for (const { sequence, block, mass } of received) {
    const excess = mass - (block === 0 ? firstAverage : restAverage);
    if (excess <= 0) continue;
    const spans = segments[sequence - 1]?.blockLines[block] ?? [];
    for (const span of spans) {
      ranges.push({ ...span, excess: excess / spans.length, mass: mass / spans.length });
    }
  }
  return joined(ranges)
    .sort((a, b) => b.excess - a.excess || compareText(a.path, b.path) || a.startLine - b.startLine)
    .slice(0, countMax)
    .map(({ path, startLine, endLine, mass }) => ({ path, startLine, endLine, share: Math.min(1, mass / total) }));
}

function joined(ranges: readonly Range[]): Range[] {
  const sorted = [...ranges].sort(
    (a, b) => compareText(a.path, b.path) || a.startLine - b.startLine || a.endLine - b.endLine,
  );
  const result: Range[] = [];
  for (const range of sorted) {
    const last = result.at(-1);
    if (last === undefined || last.path !== range.path || range.startLine > last.endLine + 1 + gapLinesMax) {
      result.push({ ...range });
      continue;
    }
    last.endLine = Math.max(last.endLine, range.endLine);
    last.excess += range.excess;
    last.mass += range.mass;
  }
  return result;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
