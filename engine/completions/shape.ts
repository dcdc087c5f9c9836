/** Whether a completion here is one line, several, or none. A rule of syntax, not a model. Pure. */

export type Shape = "none" | "line" | "lines";

/** What may stand behind the cursor on its line without making a completion there unwelcome. */
const onlyClosers = /^[\s)\]}>;:,'"`]*$/;
const opensBlock = /[{([:]\s*$|=>\s*$|\b(then|do|begin|else|try)\s*$/;
const wordEnd = /[\p{L}\p{N}_$]$/u;
const wordStart = /^[\p{L}\p{N}_$]/u;

/** `before` and `after` are all text before and after the cursor. */
export function shapeAt(before: string, after: string): Shape {
  const lineBefore = before.slice(before.lastIndexOf("\n") + 1);
  const lineEnd = after.indexOf("\n");
  const lineAfter = lineEnd < 0 ? after : after.slice(0, lineEnd);
  if (wordEnd.test(lineBefore) && wordStart.test(lineAfter)) return "none";
  if (!onlyClosers.test(lineAfter)) return "none";
  if (lineAfter.trim() !== "") return "line";
  if (lineBefore.trim() !== "") return opensBlock.test(lineBefore) ? "lines" : "line";
  const above = before.slice(0, before.length - lineBefore.length).trimEnd();
  return above === "" || opensBlock.test(above) || lineBefore !== "" ? "lines" : "line";
}
