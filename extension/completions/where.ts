import { completesLanguage, type CompletionSettings } from "../../engine/protocol";

/**
 * Schemes of documents a person edits. Chat inputs, the commit message box, outputs and old sides of diffs have other
 * schemes, and must not show ghost text.
 */
export const schemes = ["file", "untitled", "vscode-remote", "vscode-notebook-cell"] as const;

/** What is synchronised with the engine, and where completions are offered. */
export const documentSelector = schemes.map((scheme) => ({ scheme }));

export interface Place {
  readonly scheme: string;
  readonly languageId: string;
}

/** Whether ghost text may be asked for here, be it by typing or by name. */
export function completesIn(place: Place, settings: CompletionSettings): boolean {
  if (!settings.enabled || !schemes.some((scheme) => scheme === place.scheme)) return false;
  return completesLanguage(settings, place.languageId);
}
