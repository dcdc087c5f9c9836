import type { Filter } from "./offer";

/** When the model was cut short in the middle of its second line or later, the half line goes. */
export const cutUnfinishedLine: Filter = ({ text, cutShort }) => {
  const end = text.lastIndexOf("\n");
  return cutShort && end > 0 ? text.slice(0, end) : text;
};
