/**
 * Where the next completion will be asked for, guessed while the last one is being read: behind it, for it may be
 * accepted. What is found there shows at once when it is. Owns the guess; pays nothing for who never accepts.
 */

import { sameText, type Place } from "./cache";

/** An offer that is typed over at once was not read: so long nothing is begun. */
const readMs = 150;

/** After so many offers in a row for which something was begun in vain, nothing is begun until one is accepted. */
const inVainMax = 10;

/** Begins the completion for a place. */
export type Begin = (place: Place) => void;

export class Ahead {
  #guess: Place | undefined;
  #inVain = 0;
  #timer: NodeJS.Timeout | undefined;

  /** Somebody asks at `place`. Gives whether that is where it was guessed, so that the last offer was accepted whole. */
  asked(place: Place): boolean {
    clearTimeout(this.#timer);
    if (this.#guess === undefined || !sameText(this.#guess, place)) return false;
    this.#guess = undefined;
    this.#inVain = 0;
    return true;
  }

  /** `text` is on offer at `place`; `begin` is called if it stands for a moment. */
  offered(place: Place, text: string, begin: Begin): void {
    clearTimeout(this.#timer);
    const next = { ...place, before: place.before + text };
    this.#guess = next;
    if (this.#inVain >= inVainMax) return;
    this.#timer = setTimeout(() => {
      this.#inVain += 1;
      begin(next);
    }, readMs);
    this.#timer.unref();
  }

  /** Something else was typed than what was on offer: what comes after that is not begun any more. */
  left(): void {
    clearTimeout(this.#timer);
  }
}

/** Where typing goes on when nothing is to be added to a line: a new one below, indented as editors do it. Undefined but at a line's end. */
export function lineBelow(place: Place): Place | undefined {
  const { before, after } = place;
  const line = before.slice(before.lastIndexOf("\n") + 1);
  const end = /^[ \t]*(\r?\n|$)/.exec(after)?.[1];
  if (line.trim() === "" || end === undefined) return undefined;
  const [indent = ""] = /^[ \t]*/.exec(line) ?? [];
  return { ...place, before: `${before}${end === "" ? "\n" : end}${indent}` };
}
