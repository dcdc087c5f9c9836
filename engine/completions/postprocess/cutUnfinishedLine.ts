import type { Filter } from "./offer";

/** The word at the end of a text. */
const lastWord = /[\p{L}\p{N}_$]+$/u;

/**
 * When the model was cut short, what it had not finished goes: the half line, when it was at its second or later; in the first the half word, unless
 * there is nothing else.
 */
export const cutUnfinishedLine: Filter = ({ text, cutShort }) => {
  if (!cutShort) return text;
  const end = text.lastIndexOf("\n");
  if (end > 0) return text.slice(0, end);
  const whole = text.replace(lastWord, "");
  return whole.trim() === "" ? text : whole;
};
