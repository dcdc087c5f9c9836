import { realpathSync } from "node:fs";
import { l10n, window, workspace, type WorkspaceFolder } from "vscode";
import type { ContextStatus } from "../engine/protocol";
import { plainFailure } from "./errors";

/** Workspace folders that lie on a disk the engine can read. */
export function folders(): readonly WorkspaceFolder[] {
  return (workspace.workspaceFolders ?? []).filter((folder) => folder.uri.scheme === "file");
}

/** The absolute path the engine knows a folder by: its own, with symbolic links followed. */
export function rootOf(folder: WorkspaceFolder): string {
  try {
    return realpathSync.native(folder.uri.fsPath);
  } catch {
    // The folder is gone or may not be read; the engine says so in its own words.
    return folder.uri.fsPath;
  }
}

/**
 * The folder a question is about: the one of the active editor, else the one that was read with the most tokens, else
 * the first. Undefined when no folder is open.
 */
export function currentFolder(contexts: readonly ContextStatus[]): WorkspaceFolder | undefined {
  const open = folders();
  const active = window.activeTextEditor?.document.uri;
  const ofActive = active === undefined ? undefined : workspace.getWorkspaceFolder(active);
  if (ofActive !== undefined && open.includes(ofActive)) return ofActive;
  const read = mostRead(open.map(rootOf), contexts);
  return open.find((folder) => rootOf(folder) === read) ?? open[0];
}

/** The root whose context holds the most tokens; undefined when none was read. */
export function mostRead(roots: readonly string[], contexts: readonly ContextStatus[]): string | undefined {
  const read = contexts.filter((context) => context.tokens > 0 && roots.includes(context.root));
  return read.toSorted((a, b) => b.tokens - a.tokens)[0]?.root;
}

export interface FolderChoice {
  readonly placeHolder: string;
  /** Offers "All folders" too. */
  readonly all: boolean;
}

/**
 * Asks which folder is meant, when there is more than one. Empty when the user turned away; throws when no folder is
 * open.
 */
export async function chooseFolders(choice: FolderChoice): Promise<readonly WorkspaceFolder[]> {
  const open = folders();
  if (open.length === 0) throw plainFailure("noFolder");
  if (open.length === 1) return open;
  const each = open.map((folder) => ({
    label: `$(root-folder) ${folder.name}`,
    description: folder.uri.fsPath,
    chosen: [folder],
  }));
  const all = { label: `$(root-folder-opened) ${l10n.t("All folders")}`, description: "", chosen: [...open] };
  const picked = await window.showQuickPick(choice.all ? [all, ...each] : each, {
    placeHolder: choice.placeHolder,
  });
  return picked?.chosen ?? [];
}
