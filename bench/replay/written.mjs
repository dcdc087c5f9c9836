// The rules that end a completion, the same for every method.

/** No line of the cases is as long. */
export const tokensMax = 64;

/** Whether a text has its answer in it: a line with something on it, and its end. */
export function isWhole(text) {
  return /\S[^\n]*\n/.test(text);
}

/** The line that was written: the first with something on it, without the white space around it. */
export function lineOf(text) {
  return (text.split("\n").find((line) => line.trim() !== "") ?? "").trim();
}
