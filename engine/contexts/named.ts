/**
 * Names that a question asks about → the blocks that say what they are. Pure.
 *
 * Selection ranks blocks by averages over 32 keys, which among thousands of blocks does not find the one that holds a
 * name; that the name stands there letter by letter does (decisions/0005-names-in-questions.md).
 */

import type { Mention, SegmentText } from "./segmentText";

/** Something that may be the name of a thing in the repository. */
export interface AskedName {
  readonly text: string;
  /** Whether it can be nothing but a name; else it counts only where it is defined, and that in few places. */
  readonly sure: boolean;
}

/** Blocks of one segment. */
export interface NamedBlocks {
  /** The segment's key. */
  readonly key: string;
  readonly from: number;
  /** Exclusive. */
  readonly to: number;
}

export interface NamedOptions {
  /** Attended to on top of the budget, so they are few. */
  readonly blocksMax: number;
}

export const namedBlocksMax = 16;

/** Names that are found in the repository, the first of those that were asked for. */
const namesMax = 8;
/** Definitions of one name, of which there are many where every class has such a method. */
const definitionsMax = 4;
const unsureDefinitionsMax = 2;
/** A name that is mentioned so rarely is shown with all its mentions. */
const rareMentionsMax = 4;
/** Whatever is mentioned more often is not looked at to its end. */
const mentionsMax = 512;

/** Definitions first: those of every name before the mentions of any. */
export function blocksNamed(
  names: readonly AskedName[],
  segments: readonly { readonly key: string; readonly text: SegmentText }[],
  { blocksMax }: NamedOptions = { blocksMax: namedBlocksMax },
): readonly NamedBlocks[] {
  const found: { readonly definitions: readonly Place[]; readonly others: readonly Place[] }[] = [];
  for (const name of names) {
    if (found.length >= namesMax) break;
    const places = placesOf(name, segments);
    if (places !== undefined) found.push(places);
  }
  const taken = new Set<string>();
  const chosen: NamedBlocks[] = [];
  for (const { key, from, to } of [
    ...found.flatMap(({ definitions }) => definitions),
    ...found.flatMap(({ others }) => others),
  ]) {
    const blocks = Array.from({ length: to - from }, (_, index) => `${key} ${from + index}`);
    const added = blocks.filter((block) => !taken.has(block));
    if (added.length === 0) continue;
    if (taken.size + added.length > blocksMax) break;
    for (const block of added) taken.add(block);
    chosen.push({ key, from, to });
  }
  return chosen;
}

type Place = NamedBlocks & Pick<Mention, "defines">;

/** Undefined when the name says nothing about where to look. */
function placesOf(
  { text: name, sure }: AskedName,
  segments: readonly { readonly key: string; readonly text: SegmentText }[],
): { readonly definitions: readonly Place[]; readonly others: readonly Place[] } | undefined {
  const places: Place[] = [];
  for (const { key, text } of segments) {
    for (const mention of text.mentions(name, mentionsMax - places.length)) places.push({ key, ...mention });
  }
  const definitions = places.filter(({ defines }) => defines);
  if (!sure) {
    const few = definitions.length > 0 && definitions.length <= unsureDefinitionsMax;
    return few ? { definitions, others: [] } : undefined;
  }
  const others = places.length <= rareMentionsMax ? places.filter(({ defines }) => !defines) : [];
  if (definitions.length + others.length === 0) return undefined;
  return { definitions: definitions.slice(0, definitionsMax), others };
}
