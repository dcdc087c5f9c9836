/** What a conversation is told when files change that it has read: a turn of its own, before the next question. */

export interface ChangedText {
  readonly path: string;
  readonly kind: "added" | "changed" | "removed";
  /** Lines, from 1, that `text` now is; 0 for the whole file. */
  readonly startLine: number;
  readonly endLine: number;
  /** "" where only something was taken away. */
  readonly text: string;
}

export function changeNotice(changes: readonly ChangedText[]): string {
  return `Since this conversation began, files have changed.\n\n${changes.map(paragraph).join("\n\n")}`;
}

function paragraph({ path, kind, startLine, endLine, text }: ChangedText): string {
  if (kind === "removed") return `${path} was deleted.`;
  if (kind === "added") return `${path} is new:\n\n${fenced(text)}`;
  if (text === "") return `${path}: lines were removed at line ${startLine}.`;
  const lines =
    startLine === endLine ? `Line ${startLine} of ${path} is` : `Lines ${startLine} to ${endLine} of ${path} are`;
  return `${startLine === 0 ? `${path} is` : lines} now:\n\n${fenced(text)}`;
}

function fenced(text: string): string {
  // A fence longer than any in the text cannot be closed by it.
  const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map(([ticks]) => ticks.length));
  const fence = "`".repeat(longest + 1);
  return `${fence}\n${text.endsWith("\n") ? text : `${text}\n`}${fence}`;
}
