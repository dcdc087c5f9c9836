import { indentOf, isCloser } from "./lines";
import type { Filter } from "./offer";

/** Several lines end where the block that the cursor is in ends: at a line that is indented less than the cursor's. */
export const stayInBlock: Filter = ({ text, before, shape }) => {
  if (shape !== "lines") return text;
  const lineBefore = before.slice(before.lastIndexOf("\n") + 1);
  const blank = lineBefore.trim() === "";
  // On a line that opens a block, what comes back to its indentation can only be its closer.
  const indent = indentOf(blank ? lineBefore + (text.split("\n")[0] ?? "") : lineBefore);
  const lines = text.split("\n");
  const kept: string[] = lines.slice(0, 1);
  for (const line of lines.slice(1)) {
    if (line.trim() === "") {
      kept.push(line);
      continue;
    }
    const at = indentOf(line);
    if (at < indent || (!blank && at === indent && !isCloser(line))) break;
    kept.push(line);
    if (!blank && at === indent) break;
  }
  return kept.join("\n");
};
