/** Where an offer begins to write again what stands behind the cursor on its line. Pure. */

const openers = "([{";
const closers = ")]}";
const quotes = "'\"`";

/** Behind the cursor, to the end of its line. */
export function restOfLine(after: string): string {
  const end = after.indexOf("\n");
  return (end < 0 ? after : after.slice(0, end)).trimEnd();
}

/**
 * Where the first line of `text` ends, or before that closes what the rest of the cursor's line closes already: the quote that this begins with, or brackets.
 * Those that were opened before the cursor and that the rest leaves open are the offer's to close. Undefined for a rest of other kinds, and where
 * quotes hide what is a bracket.
 */
export function endBeforeRest(text: string, before: string, after: string): number | undefined {
  const rest = restOfLine(after).trimStart();
  const lineEnd = text.indexOf("\n");
  const line = lineEnd < 0 ? text : text.slice(0, lineEnd);
  const [first = ""] = rest;
  if (first !== "" && quotes.includes(first)) return quoteIn(line, first) ?? line.length;
  if (first === "" || !closers.includes(first)) return undefined;
  const opened = bracketsOf(before.slice(before.lastIndexOf("\n") + 1)).open;
  const { closedAt, isQuoted } = bracketsOf(line);
  const at = closedAt[Math.max(0, opened - bracketsOf(rest).closedAt.length)];
  return at ?? (isQuoted ? undefined : line.length);
}

function quoteIn(line: string, quote: string): number | undefined {
  for (let at = 0; at < line.length; at += 1) {
    if (line[at] === "\\") at += 1;
    else if (line[at] === quote) return at;
  }
  return undefined;
}

interface Brackets {
  /** Left open at the end. */
  readonly open: number;
  /** Where those are closed that were not opened. */
  readonly closedAt: readonly number[];
  /** Whether a quote is open at the end. */
  readonly isQuoted: boolean;
}

function bracketsOf(line: string): Brackets {
  const closedAt: number[] = [];
  let open = 0;
  let quote = "";
  for (let at = 0; at < line.length; at += 1) {
    const character = line.charAt(at);
    if (character === "\\") at += 1;
    else if (quote !== "") quote = character === quote ? "" : quote;
    else if (quotes.includes(character)) quote = character;
    else if (openers.includes(character)) open += 1;
    else if (!closers.includes(character)) continue;
    else if (open > 0) open -= 1;
    else closedAt.push(at);
  }
  return { open, closedAt, isQuoted: quote !== "" };
}
