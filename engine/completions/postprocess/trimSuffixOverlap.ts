import type { Filter } from "./offer";
import { endBeforeRest, restOfLine } from "./rest";

/** What stands behind the cursor already is not offered again: the rest of its line, and whole lines below. */
export const trimSuffixOverlap: Filter = ({ text, before, after }) => {
  const end = endBeforeRest(text, before, after);
  return withoutLinesBelow(end === undefined ? withoutRest(text, restOfLine(after)) : text.slice(0, end), after);
};

const onlyPunctuation = /^[\s;,)\]}]*$/;

function withoutRest(text: string, rest: string): string {
  if (rest === "") return text;
  const firstEnd = text.indexOf("\n");
  const first = (firstEnd < 0 ? text : text.slice(0, firstEnd)).trimEnd();
  const again = first.lastIndexOf(rest);
  if (again >= 0 && onlyPunctuation.test(first.slice(again + rest.length))) return first.slice(0, again);
  // With text behind the cursor an offer is one line: it ends where that text begins again.
  for (let length = Math.min(rest.length, first.length); length > 0; length--) {
    if (first.endsWith(rest.slice(0, length))) return first.slice(0, first.length - length);
  }
  return text;
}

/** Longer overlaps than this are not looked for. */
const linesMax = 12;

function withoutLinesBelow(text: string, after: string): string {
  const lines = text.split("\n");
  const below = after
    .split("\n")
    .slice(1, linesMax + 1)
    .map((line) => line.trimEnd());
  while (below.length > 0 && below[0] === "") below.shift();
  for (let length = Math.min(below.length, lines.length - 1); length > 0; length--) {
    const end = lines.slice(lines.length - length).map((line) => line.trimEnd());
    if (end.every((line, index) => line === below[index]) && end.some((line) => line !== "")) {
      return lines.slice(0, lines.length - length).join("\n");
    }
  }
  return text;
}
