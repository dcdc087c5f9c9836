import type { Filter } from "./offer";

/** Longer patterns than this are not looked for. */
const periodMax = 6;

/** A run of lines that says the same again and again is said once. */
export const cutRepetition: Filter = ({ text }) => {
  const lines = text.split("\n");
  for (let period = 1; period <= periodMax; period++) {
    for (let start = 0; start + 3 * period <= lines.length; start++) {
      if (!repeats(lines, start, period)) continue;
      return lines.slice(0, start + period).join("\n");
    }
  }
  return text;
};

/** Whether `period` lines from `start` on come three times in a row, and are not blank. */
function repeats(lines: readonly string[], start: number, period: number): boolean {
  let spoken = false;
  for (let at = start; at < start + period; at++) {
    const line = lines[at]?.trim() ?? "";
    if (line !== lines[at + period]?.trim() || line !== lines[at + 2 * period]?.trim()) return false;
    // Closing brackets repeat for good reason.
    if (/[\p{L}\p{N}]/u.test(line)) spoken = true;
  }
  return spoken;
}
