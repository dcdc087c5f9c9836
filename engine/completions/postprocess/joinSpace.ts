import type { Filter } from "./offer";

/** Behind a space that was typed already the model's own is one too many; indentation is left as it is. */
export const joinSpace: Filter = ({ text, before }) => (/\S[ \t]$/.test(before) ? text.replace(/^ +(?=\S)/, "") : text);
