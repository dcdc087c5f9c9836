/**
 * Attention masses → the lines of files that an answer drew on. Pure.
 *
 * Some blocks receive attention whatever is asked: the first of every segment, and what selection always takes. What
 * counts is what a block received above that: above its share of the attention in answers to neutral questions on the
 * same context, and above the average of its rank in this answer (first blocks of segments are of one rank, the rest of
 * another). The second stands in where nothing neutral was measured, and for blocks that neutral answers did not select,
 * whose mass there is 0 and says nothing. Attended sequence 0 is the header, with the sink, and names no file; the tail's
 * own blocks are not among the masses.
 */

import type { BlockMass } from "../native/addon";
import type { Reference } from "../protocol";
import type { BlockSpan } from "../repository/segments";

export interface AttendedSegment {
  readonly blockLines: readonly (readonly BlockSpan[])[];
}

export interface ReferenceOptions {
  readonly countMax: number;
  /** Masses in answers to neutral questions on the same context; none when they were not measured. */
  readonly neutral?: readonly BlockMass[];
  /** A block is left out that received less than this share of what the best block did, both above what is usual. */
  readonly shareOfBestMin?: number;
}

/** Ranges of one file that are this close to each other are shown as one. */
const gapLinesMax = 2;

interface Block {
  readonly spans: readonly BlockSpan[];
  readonly mass: number;
  /** Above what is usual for it; positive. */
  readonly excess: number;
}

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
  options: ReferenceOptions,
): readonly Reference[] {
  const received = ofSegments(masses, segments);
  const total = sum(received.map(({ mass }) => mass));
  if (total <= 0) return [];
  const blocks = aboveUsual(received, total, segments, options.neutral ?? []);
  const best = Math.max(0, ...blocks.map(({ excess }) => excess));
  const least = best * (options.shareOfBestMin ?? 0);
  const ranges = blocks
    .filter(({ excess }) => excess >= least)
    .flatMap(({ spans, excess, mass }) =>
      spans.map((span) => ({ ...span, excess: excess / spans.length, mass: mass / spans.length })),
    );
  return joined(ranges)
    .sort((a, b) => b.excess - a.excess || compareText(a.path, b.path) || a.startLine - b.startLine)
    .slice(0, options.countMax)
    .map(({ path, startLine, endLine, mass }) => ({ path, startLine, endLine, share: Math.min(1, mass / total) }));
}

function aboveUsual(
  received: readonly BlockMass[],
  total: number,
  segments: readonly AttendedSegment[],
  neutral: readonly BlockMass[],
): readonly Block[] {
  const usual = ofSegments(neutral, segments);
  const usualTotal = sum(usual.map(({ mass }) => mass));
  const usualOf = new Map(usual.map(({ sequence, block, mass }) => [`${sequence} ${block}`, mass]));
  const firsts = segments.filter(({ blockLines }) => blockLines.length > 0).length;
  const others = sum(segments.map(({ blockLines }) => Math.max(0, blockLines.length - 1)));
  const firstAverage = sum(received.filter(({ block }) => block === 0).map(({ mass }) => mass)) / Math.max(1, firsts);
  const otherAverage = sum(received.filter(({ block }) => block > 0).map(({ mass }) => mass)) / Math.max(1, others);

  const blocks: Block[] = [];
  for (const { sequence, block, mass } of received) {
    const share = usualTotal > 0 ? (usualOf.get(`${sequence} ${block}`) ?? 0) / usualTotal : 0;
    const excess = mass - Math.max(share * total, block === 0 ? firstAverage : otherAverage);
    if (excess > 0) blocks.push({ spans: segments[sequence - 1]?.blockLines[block] ?? [], mass, excess });
  }
  return blocks;
}

function ofSegments(masses: readonly BlockMass[], segments: readonly AttendedSegment[]): readonly BlockMass[] {
  return masses.filter(({ sequence, block }) => segments[sequence - 1]?.blockLines[block] !== undefined);
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
