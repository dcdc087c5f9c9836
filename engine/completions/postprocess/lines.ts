/** Columns of white space at the start of a line; a tab counts as four. */
export function indentOf(line: string): number {
  let columns = 0;
  for (const character of line) {
    if (character === " ") columns += 1;
    else if (character === "\t") columns += 4;
    else break;
  }
  return columns;
}

/** Whether a line does nothing but close what was opened above it. */
export function isCloser(line: string): boolean {
  return /^\s*(?:[)\]}]+[;,)\]}]*|end\b.*|<\/.*)\s*$/.test(line);
}
