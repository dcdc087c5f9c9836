/**
 * Which text behind the cursor a prompt shows. A model that sees it first reads its whole prompt again whenever that text
 * changes, so it is held still while somebody types: editors add and remove what closes brackets all the time, and
 * that changes nothing of what is to be written. Owns what is held.
 */

import type { CompletionOrder } from "../native/addon";

/** What editors put behind the cursor by themselves, up to the end of its line. Whether an offer closes the same again is seen afterwards. */
const closersToLineEnd = /^[)\]}>;:,'"`]*[ \t]*(\r?\n|$)/;
const closersLine = /^[\s)\]}>;:,'"`]*$/;

/** So many lines that say nothing may have come or gone between the cursor's line and what is held. */
const linesMax = 4;
/** More than a prompt ever shows; what is further away may change. */
const charactersMax = 4_096;
/** Who typed nothing for so long finds everything as it stands. */
const pauseMs = 10_000;

export interface Behind {
  readonly text: string;
  /** Lines of the file between the cursor's and the first one of the text. */
  readonly linesSkipped: number;
}

/** Where the line ends at the cursor, what is missing is the rest of it with its end: so models were trained. */
export function textBehind(after: string, order: CompletionOrder): string {
  return after.replace(order === "suffix-first" ? closersToLineEnd : /^\r?\n/, "");
}

export class HeldText {
  #uri = "";
  #text: string | undefined;
  #shownAtMs = Number.NEGATIVE_INFINITY;

  /** What to show at a cursor that all of `after` stands behind, for a model that sees it first. */
  shown(uri: string, after: string, nowMs: number): Behind {
    const text = textBehind(after, "suffix-first");
    const isFresh = this.#uri === uri && nowMs - this.#shownAtMs < pauseMs;
    const linesSkipped = isFresh && this.#text !== undefined ? linesBetween(text, this.#text) : undefined;
    this.#shownAtMs = nowMs;
    if (this.#text !== undefined && linesSkipped !== undefined) return { text: this.#text, linesSkipped };
    this.#uri = uri;
    this.#text = text.slice(0, charactersMax);
    return { text: this.#text, linesSkipped: 0 };
  }
}

/** Lines of `text` before what is held, 0 too when lines without a word have gone; undefined when it is not to be held any longer. */
function linesBetween(text: string, held: string): number | undefined {
  let from = 0;
  for (let lines = 0; lines <= linesMax; lines += 1) {
    if (text.slice(from, from + charactersMax) === held) return lines;
    const end = text.indexOf("\n", from);
    if (end < 0 || !closersLine.test(text.slice(from, end))) break;
    from = end + 1;
  }
  let gone = 0;
  for (let lines = 0; lines < linesMax; lines += 1) {
    const end = held.indexOf("\n", gone);
    if (end < 0 || held.slice(gone, end).trim() !== "") return undefined;
    gone = end + 1;
    if (text.slice(0, charactersMax - gone) === held.slice(gone)) return 0;
  }
  return undefined;
}
