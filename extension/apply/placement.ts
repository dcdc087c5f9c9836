/**
 * Where a block of code belongs in a file. Pure: text in, text out.
 *
 * In this order: it is the file anew; as a comment alone, or above code that breaks off, it goes above the selected code;
 * it stands in for the selected lines; it stands in for the declarations of the same name; else it goes to the cursor. The
 * person sees the difference before anything is written.
 */

/** From 0, both inclusive. */
export interface Lines {
  readonly from: number;
  readonly to: number;
}

export interface Declaration extends Lines {
  /** Its first line is that of the declaration itself: a comment above is no part of it. */
  readonly name: string;
}

export interface PlacementInput {
  /** The file as it stands. */
  readonly text: string;
  readonly code: string;
  /** Lines the question was about; null for none. */
  readonly selected: Lines | null;
  /** Line of the cursor, from 0: what has no other place goes below it. */
  readonly cursorLine: number;
  /** What the language's service finds in the file. */
  readonly declarations: readonly Declaration[];
}

export interface Placement {
  readonly text: string;
  readonly kind: "file" | "selection" | "declaration" | "cursor";
}

export function placed(input: PlacementInput): Placement {
  const { text, selected } = input;
  const newline = text.includes("\r\n") ? "\r\n" : "\n";
  const lines = text.split(/\r?\n/);
  const code = trimmedCode(input.code);
  const names = declaredNames(code);
  const same = input.declarations.filter(({ name }) => names.includes(name));
  const done = (kind: Placement["kind"], parts: readonly string[]): Placement => ({ text: parts.join(newline), kind });

  if (isWholeFile(code, input.declarations, names)) {
    const end = text.endsWith("\n") || text === "" ? [""] : [];
    return done("file", [...code, ...end]);
  }
  const comment = commentAlone(code);
  if (selected !== null && comment.length > 0) {
    const first = lines.findIndex((line, at) => within(selected, at) && line.trim() !== "" && !isComment(line));
    if (first >= 0) return done("selection", commented(lines, first, closed(comment)));
  }
  if (selected !== null && (same.length === 0 || same.some((each) => overlaps(each, selected)))) {
    const range = same.reduce((whole, each) => (overlaps(each, selected) ? joined(whole, each) : whole), selected);
    return done("selection", replaced(lines, withComment(lines, range, code), code));
  }
  if (same.length > 0) {
    const range = same.reduce<Lines>(joined, { from: Number.MAX_SAFE_INTEGER, to: -1 });
    // Code for two places that lie apart must not swallow what is between them.
    const between = input.declarations.filter((each) => overlaps(each, range) && !same.includes(each));
    if (between.length === 0) return done("declaration", replaced(lines, withComment(lines, range, code), code));
  }
  const at = Math.min(lines.length, input.cursorLine + 1);
  const isEmptyLine = (lines[at - 1] ?? "").trim() === "";
  const from = isEmptyLine ? at - 1 : at;
  const indent = isEmptyLine ? "" : (/^\s*/.exec(lines[at - 1] ?? "")?.[0] ?? "");
  return done("cursor", [...lines.slice(0, from), ...reindented(code, indent), ...lines.slice(at)]);
}

/** Empty lines at both ends are the answer's, not the file's. */
function trimmedCode(code: string): readonly string[] {
  const lines = code.split(/\r?\n/);
  const first = lines.findIndex((line) => line.trim() !== "");
  const last = lines.findLastIndex((line) => line.trim() !== "");
  return first < 0 ? [] : lines.slice(first, last + 1);
}

/** Code that imports, and declares what the file declares, is the file anew. */
function isWholeFile(code: readonly string[], declarations: readonly Declaration[], names: readonly string[]): boolean {
  if (declarations.length === 0) return false;
  const outer = declarations.filter((each) => !declarations.some((other) => other !== each && contains(other, each)));
  const kept = outer.filter(({ name }) => names.includes(name)).length;
  const imports = code.some((line) => /^(import|from|#include|package|use)\b/.test(line));
  return outer.length > 1 && kept === outer.length && imports;
}

/** Names that the code declares at its outermost level. */
export function declaredNames(code: readonly string[]): readonly string[] {
  const indents = code.filter((line) => line.trim() !== "").map((line) => line.length - line.trimStart().length);
  const outermost = Math.min(...indents, Number.MAX_SAFE_INTEGER);
  return code
    .filter((line) => line.length - line.trimStart().length === outermost)
    .flatMap((line) => {
      const word = declarationWord.exec(line.trim());
      return word?.[1] === undefined ? [] : [word[1]];
    });
}

const declarationWord =
  /^(?:(?:export|default|public|private|protected|internal|static|async|abstract|final|readonly|declare|pub|override|inline|constexpr|virtual)\s+)*(?:function\*?|class|interface|type|enum|const|let|var|def|fn|func|struct|trait|impl|namespace|module|record)\s+([A-Za-z_$][\w$]*)/;

/** Code that brings its own comment takes the place of the old one too; else the old comment stays. */
function withComment(lines: readonly string[], range: Lines, code: readonly string[]): Lines {
  if (!isComment(code[0] ?? "")) return range;
  let from = range.from;
  while (from > 0 && isComment(lines[from - 1] ?? "")) from -= 1;
  return { from, to: range.to };
}

function isComment(line: string): boolean {
  return /^(\/\*|\*|\/\/|#(?!include)|"""|--)/.test(line.trim());
}

/**
 * What is only to be said above code, if it is no more than that. So is a comment above code that breaks off where a block
 * opens: an answer that documents code may repeat its first line alone, which must not take the place of the whole.
 */
function commentAlone(code: readonly string[]): readonly string[] {
  const below = code.findIndex((line) => line.trim() !== "" && !isComment(line));
  if (below < 0) return code;
  return /([{([:]|=>)\s*$/.test(code.at(-1) ?? "") ? trimmedCode(code.slice(0, below).join("\n")) : [];
}

/** A comment that the answer ended in is ended, or it would take in what follows. */
function closed(comment: readonly string[]): readonly string[] {
  const text = comment.join("\n");
  return text.lastIndexOf("/*") > text.lastIndexOf("*/") ? [...comment, " */"] : comment;
}

/** The comment stands above a line of code, in place of the one that was there: what is asked to be documented must not go. */
function commented(lines: readonly string[], at: number, comment: readonly string[]): readonly string[] {
  const { from } = withComment(lines, { from: at, to: at }, comment);
  const indent = /^\s*/.exec(lines[at] ?? "")?.[0] ?? "";
  return [...lines.slice(0, from), ...reindented(comment, indent), ...lines.slice(at)];
}

/** The lines of a range give way to code, indented as they were. */
function replaced(lines: readonly string[], { from, to }: Lines, code: readonly string[]): readonly string[] {
  const old = lines.slice(from, to + 1).find((line) => line.trim() !== "") ?? "";
  const indent = /^\s*/.exec(old)?.[0] ?? "";
  return [...lines.slice(0, from), ...reindented(code, indent), ...lines.slice(to + 1)];
}

function reindented(code: readonly string[], indent: string): readonly string[] {
  const own = code
    .filter((line) => line.trim() !== "")
    .map((line) => /^\s*/.exec(line)?.[0] ?? "")
    .reduce<string | undefined>(
      (least, each) => (least === undefined || each.length < least.length ? each : least),
      undefined,
    );
  if (own === undefined || own === indent) return code;
  return code.map((line) => (line.trim() === "" ? "" : indent + line.slice(own.length)));
}

function within({ from, to }: Lines, line: number): boolean {
  return from <= line && line <= to;
}

function overlaps(a: Lines, b: Lines): boolean {
  return a.from <= b.to && b.from <= a.to;
}

function contains(outer: Lines, inner: Lines): boolean {
  return outer.from <= inner.from && inner.to <= outer.to;
}

function joined(a: Lines, b: Lines): Lines {
  return { from: Math.min(a.from, b.from), to: Math.max(a.to, b.to) };
}
