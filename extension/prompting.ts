/** Longest text of one attached file or selection; the rest of the file is in the context anyway. */
export const attachedCharactersMax = 8_000;

/** A file or selection the user attached to a question, as the model is shown it. */
export function attachedText(path: string, text: string, languageId: string): string {
  const isCut = text.length > attachedCharactersMax;
  const shown = isCut ? `${text.slice(0, attachedCharactersMax)}\n…` : text;
  const fence = fenceFor(shown);
  return `${path}\n${fence}${languageId}\n${shown}\n${fence}`;
}

/** What one may want to ask next, from the lines an answer drew on. */
export function followupsFor(labels: readonly string[]): readonly string[] {
  const [first, second] = labels;
  if (first === undefined) return [];
  const file = first.replace(/:\d+(-\d+)?$/, "");
  const asked = [`Explain ${first}`, `What else uses ${file}?`];
  return second === undefined ? asked : [...asked, `How does ${second} fit in?`];
}

/** Longer than any run of backticks in the text, so that the text cannot end its own fence. */
function fenceFor(text: string): string {
  const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map((run) => run[0].length));
  return "`".repeat(longest + 1);
}
