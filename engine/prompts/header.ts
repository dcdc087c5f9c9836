/**
 * The one place that says how every context begins.
 */

import type { Pieces, PromptFormat } from "./format";

/**
 * The repository's name as the raw repository format has it, and nothing before it but the token that the model wants first. The layout experiment found
 * this better than a chat turn around the repository: decisions/0001-context-layout.md. `repository` "" gives the least that a context can begin with.
 */
export function headerPieces({ bos, repoName }: PromptFormat, repository: string): Pieces {
  if (repository === "") return [{ text: `${bos}\n`, special: true }];
  return [
    { text: bos + (repoName === "" ? "Repository: " : repoName), special: true },
    { text: `${oneLine(repository)}\n`, special: false },
  ];
}

/** A name or path that stays on its line whatever it holds. */
export function oneLine(name: string): string {
  return name.replace(/\p{Cc}/gu, (character) => `\\x${(character.codePointAt(0) ?? 0).toString(16).padStart(2, "0")}`);
}
