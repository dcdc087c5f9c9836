/**
 * The one place that says how every context begins.
 */

import type { Pieces, PromptFormat } from "./format";

const line =
  "You are Nosa, a coding assistant that has read the whole repository below. Answer from its files and name the paths you rely on.";
const lineWithoutRepository = "You are Nosa, a coding assistant.";

/** Opens the system turn, states the one fixed line and the repository's name. `repository` "" gives a header without repository. */
export function headerPieces({ template, repoName }: PromptFormat, repository: string): Pieces {
  if (repository === "") return [{ text: template.opening + lineWithoutRepository, special: true }];
  return [
    { text: `${template.opening}${line}\n${repoName === "" ? "Repository: " : repoName}`, special: true },
    { text: `${oneLine(repository)}\n`, special: false },
  ];
}

/** A name or path that stays on its line whatever it holds. */
export function oneLine(name: string): string {
  return name.replace(/\p{Cc}/gu, (character) => `\\x${(character.codePointAt(0) ?? 0).toString(16).padStart(2, "0")}`);
}
