import type { Filter } from "./offer";

/** Where one line is wanted, what follows the first is dropped. */
export const keepFirstLine: Filter = ({ text, shape }) => {
  if (shape !== "line") return text;
  const end = text.indexOf("\n");
  return end < 0 ? text : text.slice(0, end);
};
