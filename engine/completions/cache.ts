/** Offers made before: when the user types what was offered, the rest of it is offered again, at once. Owns them, LRU. */

import { LruMap } from "../util/lru";

export interface Place {
  readonly uri: string;
  readonly before: string;
  readonly after: string;
  /** What the answer depends on beside the text: model and context. */
  readonly basis: string;
}

/** Whether a completion is the same at both. */
export function samePlace(a: Place, b: Place): boolean {
  return a.basis === b.basis && sameText(a, b);
}

/** Whether both stand in the same text, whatever an answer depends on beside. */
export function sameText(a: Place, b: Place): boolean {
  return a.uri === b.uri && a.before === b.before && a.after === b.after;
}

interface Entry {
  readonly place: Place;
  /** Of the text before the cursor when the offer was made. */
  readonly length: number;
  readonly text: string;
}

/** So much of the text before the cursor must be the same; what is further away hardly matters to an offer. */
const comparedCharacters = 2_000;

export class CompletionCache {
  readonly #entries: LruMap<string, Entry>;

  constructor(entriesMax: number) {
    this.#entries = new LruMap(entriesMax);
  }

  put(place: Place, text: string): void {
    const { before, after } = place;
    const near = { ...place, before: before.slice(-comparedCharacters), after: after.slice(0, comparedCharacters) };
    this.#entries.set(JSON.stringify([near.uri, before.length, near.before, near.after]), {
      place: near,
      length: before.length,
      text,
    });
  }

  /** What is left of an offer that the user typed into; "" for a place where nothing was to be offered. */
  get(place: Place): string | undefined {
    for (const [key, entry] of this.#entries.newestFirst()) {
      const rest = restOf(entry, place);
      if (rest === undefined) continue;
      this.#entries.get(key);
      return rest;
    }
    return undefined;
  }
}

function restOf(entry: Entry, place: Place): string | undefined {
  if (entry.place.uri !== place.uri || entry.place.basis !== place.basis) return undefined;
  const typedLength = place.before.length - entry.length;
  if (typedLength < 0 || typedLength > entry.text.length) return undefined;
  const typed = place.before.slice(entry.length);
  if (!entry.text.startsWith(typed) || (typed !== "" && typed.length === entry.text.length)) return undefined;
  const before = place.before.slice(0, entry.length).slice(-comparedCharacters);
  if (before !== entry.place.before || place.after.slice(0, comparedCharacters) !== entry.place.after) return undefined;
  return entry.text.slice(typedLength);
}
