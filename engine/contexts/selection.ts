/**
 * Which blocks a tail's queries may, must and must not attend to. Pure.
 *
 * With no more blocks than the budget, all are attended to.
 */

import type { BlockRange, SelectionOptions } from "../native/addon";
import type { Place } from "../protocol";
import type { BlockSpan } from "../repository/segments";
import type { NamedBlocks } from "./named";

/**
 * The constants published for NOSA but for the query's share, which is 16 there: with 32 more of what an answer needs is
 * in sight (decisions/0003).
 */
export const selectionBudget = {
  policy: "nosa",
  totalBlocks: 64,
  queryBlocks: 32,
  sinkBlocks: 1,
  windowBlocks: 17,
} as const;

/** Names the budget where KV depends on it. */
export const selectionName = Object.values(selectionBudget).join(" ");

/** More pinned blocks than this are no help to any question. They come on top of the budget. */
export const pinnedBlocksMax = 64;

/** What a request wants of a context. */
export interface Focus {
  /** Attended to by every query. */
  readonly pins: readonly Place[];
  /** Nothing else is attended to, unless there is none. */
  readonly scope: readonly Place[];
  /** Never attended to: the tail holds a newer state of these. */
  readonly hidden: readonly Place[];
  /** Attended to by every query as well: what the question names. */
  readonly named: readonly NamedBlocks[];
}

export const noFocus: Focus = { pins: [], scope: [], hidden: [], named: [] };

export interface SelectableSegment {
  readonly key: string;
  readonly blockLines: readonly (readonly BlockSpan[])[];
}

/** `segments[i]` is attended sequence i + 1; the header, 0, is always there to be attended to. */
export function selectionFor(segments: readonly SelectableSegment[], focus: Focus): SelectionOptions {
  const { pins, scope, hidden } = focus;
  const inScope = matcher(scope);
  const isHidden = matcher(hidden);
  const isPinned = matcher(pins);
  const masked = rangesOf(
    segments,
    (spans) => (scope.length > 0 && !spans.some(inScope)) || (hidden.length > 0 && spans.some(isHidden)),
  );
  const isNamed = matcherOfBlocks(focus.named);
  const pinned = [
    ...(focus.named.length === 0 ? [] : rangesOf(segments, (_, key, block) => isNamed(key, block))),
    ...firstBlocks(
      pins.length === 0 ? [] : rangesOf(segments, (spans, key, block) => spans.some(isPinned) && !isNamed(key, block)),
    ),
  ];
  const pinnedBlocks = pinned.reduce((sum, { from, to }) => sum + to - from, 0);
  return { ...selectionBudget, totalBlocks: selectionBudget.totalBlocks + pinnedBlocks, masked, pinned };
}

function matcher(places: readonly Place[]): (span: BlockSpan) => boolean {
  const whole = new Set(places.filter(({ endLine }) => endLine === 0).map(({ path }) => path));
  const folders = [...whole].filter((path) => path.endsWith("/") || path === "");
  const ranges = places.filter(({ endLine }) => endLine > 0);
  return ({ path, startLine, endLine }) =>
    whole.has(path) ||
    folders.some((folder) => path.startsWith(folder)) ||
    ranges.some((range) => range.path === path && range.startLine <= endLine && range.endLine >= startLine);
}

function matcherOfBlocks(named: readonly NamedBlocks[]): (key: string, block: number) => boolean {
  const keys = new Set(named.map(({ key }) => key));
  return (key, block) =>
    keys.has(key) && named.some((each) => each.key === key && each.from <= block && block < each.to);
}

function rangesOf(
  segments: readonly SelectableSegment[],
  wanted: (spans: readonly BlockSpan[], key: string, block: number) => boolean,
): BlockRange[] {
  const ranges: BlockRange[] = [];
  for (const [index, { key, blockLines }] of segments.entries()) {
    const chosen = (block: number): boolean => wanted(blockLines[block] ?? [], key, block);
    for (let from = 0; from < blockLines.length; from++) {
      if (!chosen(from)) continue;
      let to = from + 1;
      while (to < blockLines.length && chosen(to)) to++;
      ranges.push({ sequence: index + 1, from, to });
      from = to;
    }
  }
  return ranges;
}

function firstBlocks(ranges: readonly BlockRange[]): readonly BlockRange[] {
  const kept: BlockRange[] = [];
  let left = pinnedBlocksMax;
  for (const range of ranges) {
    if (left <= 0) break;
    const to = Math.min(range.to, range.from + left);
    kept.push({ ...range, to });
    left -= to - range.from;
  }
  return kept;
}
