import type { Tab } from "vscode";

/** Whether `uri` is a side of the difference that a tab shows: who compares is not writing, and ghost text would be taken for a change. */
export function showsDifferenceOf(tab: Pick<Tab, "input"> | undefined, uri: string): boolean {
  const input: unknown = tab?.input;
  if (typeof input !== "object" || input === null || !("original" in input) || !("modified" in input)) return false;
  return [input.original, input.modified].some((side) => String(side) === uri);
}
