import type { Filter } from "./offer";

/** Nothing but white space, or what the line below says already, is no offer. */
export const dropWorthless: Filter = ({ text, after }) => {
  const trimmed = text.trimEnd();
  if (trimmed.trim() === "") return "";
  const below = after
    .slice(after.indexOf("\n") + 1)
    .split("\n")
    .find((line) => line.trim() !== "");
  const [first, ...more] = trimmed.split("\n");
  if (after.includes("\n") && more.length === 0 && below?.trim() === first?.trim() && /[\p{L}\p{N}]/u.test(trimmed))
    return "";
  return trimmed;
};
