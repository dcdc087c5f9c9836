import { ConfigurationTarget, Uri, l10n, window, workspace, type TextEditor, type WorkspaceFolder } from "vscode";
import type { Place } from "../engine/protocol";
import { symbolAround } from "./asking/prepare";
import { pathInside, wholeLines } from "./asking/subjects";
import type { Engine } from "./client";
import { goneRow } from "./commands";
import type { PlaceNode } from "./contextView";
import { Failure, failureFrom, plainFailure } from "./errors";
import type { Indexing } from "./indexing";
import { pinsMax, wholeOf, type Pins } from "./pins";
import { folders, rootOf } from "./roots";

export interface ContextActionsOptions {
  readonly engine: Engine;
  readonly pins: Pins;
  readonly indexing: Indexing;
}

/** A file, a folder, or lines of a file of a repository. */
interface Chosen extends Place {
  readonly folder: WorkspaceFolder;
  readonly root: string;
}

/** What can be done to a file or folder of the context. Called from the tree, the explorer, or for the file that is open. */
export class ContextActions {
  readonly #options: ContextActionsOptions;

  constructor(options: ContextActionsOptions) {
    this.#options = options;
  }

  async pin(what: unknown): Promise<void> {
    await this.#pin(await chosenPlace(what));
  }

  /** The selected lines; with nothing selected, those of the function or class that the cursor is in. */
  async pinLines(): Promise<void> {
    const editor = window.activeTextEditor;
    const { folder, root, path } = await chosenPlace(editor?.document.uri);
    const range = editor?.selection.isEmpty === false ? editor.selection : await symbolAround(editor);
    if (editor === undefined || range === undefined) throw plainFailure("nothingNamed");
    const { start, end } = wholeLines(editor.document, range);
    await this.#pin({ folder, root, path, startLine: start.line + 1, endLine: end.line + 1 });
  }

  async unpin(what: unknown): Promise<void> {
    const { root, path, startLine, endLine } = await chosenPlace(what);
    await this.#options.pins.remove(root, { path, startLine, endLine });
  }

  /** The pinned lines that the cursor or the selection is in. */
  async unpinLines(): Promise<void> {
    const { pins } = this.#options;
    const editor = window.activeTextEditor;
    const { root, path } = await chosenPlace(editor?.document.uri);
    const pinned = linesAtCursor(editor, pins.linesOf(root, path));
    if (pinned.length === 0) throw new Failure("badRequest", l10n.t("No lines are pinned here."));
    for (const place of pinned) await pins.remove(root, place);
  }

  async #pin({ root, path, startLine, endLine }: Chosen): Promise<void> {
    if (await this.#options.pins.add(root, { path, startLine, endLine })) return;
    throw new Failure(
      "badRequest",
      l10n.t("{0} files, folders and pieces of files are pinned, which is the most. Unpin one first.", pinsMax),
    );
  }

  /** Leaves it out from now on, by the workspace's settings. */
  async exclude(what: unknown): Promise<void> {
    const { folder, root, path } = await chosenPlace(what);
    await this.#options.pins.remove(root, wholeOf(path));
    await changeExcludes(folder, (globs) => [...globs.filter((glob) => glob !== globFor(path)), globFor(path)]);
    await this.#readAgain(folder, []);
  }

  /** Takes back what `exclude` did. */
  async include(what: unknown): Promise<void> {
    const { folder, path } = await chosenPlace(what);
    const parents = path.split("/").map((_, index, parts) => `${parts.slice(0, index + 1).join("/")}/`);
    const meant = new Set([path, ...parents].map(globFor));
    const before = excludes();
    await changeExcludes(folder, (globs) => globs.filter((glob) => !meant.has(glob)));
    if (excludes().length === before.length) {
      throw new Failure("badRequest", l10n.t("Another rule excludes {0}: look at the setting nosa.exclude.", path));
    }
    await this.#readAgain(folder, []);
  }

  /** Reads it anew, although it did not change. */
  async reread(what: unknown): Promise<void> {
    const { folder, path } = await chosenPlace(what);
    await this.#readAgain(folder, [path]);
  }

  /** Only a repository that was read is read again: nobody asked for the first time. */
  async #readAgain(folder: WorkspaceFolder, reread: readonly string[]): Promise<void> {
    try {
      await this.#options.engine.request("nosa/context", { root: rootOf(folder) });
    } catch (error) {
      if (failureFrom(error).kind === "notIndexed") return;
      throw error;
    }
    await this.#options.indexing.indexQuietly(folder, reread);
  }
}

/** A node of the tree, a file of the explorer, or, from the palette, the file that is open. */
async function chosenPlace(what: unknown): Promise<Chosen> {
  if (!workspace.isTrusted) throw plainFailure("untrusted");
  // It must not be taken for the file that is open.
  if (what === goneRow) throw plainFailure("rowGone");
  if (isPlaceNode(what)) {
    const folder = folders().find((each) => rootOf(each) === what.root);
    const { root, path, startLine = 0, endLine = 0 } = what;
    if (folder !== undefined) return { folder, root, path, startLine, endLine };
  }
  const uri = what instanceof Uri ? what : window.activeTextEditor?.document.uri;
  const folder = uri === undefined ? undefined : workspace.getWorkspaceFolder(uri);
  const inside = uri === undefined || folder === undefined ? undefined : pathInside(folder, uri);
  if (uri === undefined || folder === undefined || inside === undefined || inside === "") {
    throw plainFailure("nothingNamed");
  }
  const isFolder = ((await workspace.fs.stat(uri)).type & folderFlag) !== 0;
  return { folder, root: rootOf(folder), ...wholeOf(isFolder ? `${inside}/` : inside) };
}

function linesAtCursor(editor: TextEditor | undefined, pinned: readonly Place[]): readonly Place[] {
  if (editor === undefined) return [];
  const { start, end } = wholeLines(editor.document, editor.selection);
  return pinned.filter((place) => place.startLine <= end.line + 1 && start.line + 1 <= place.endLine);
}

/** FileType.Directory; a link to a folder has the flag beside its own. */
const folderFlag = 2;

function isPlaceNode(value: unknown): value is PlaceNode {
  return typeof value === "object" && value !== null && "root" in value && "path" in value && "kind" in value;
}

/** A folder's glob covers what is below it. Characters that mean something in a glob are matched as they are. */
export function globFor(path: string): string {
  const literal = path.replaceAll(/[[\]{}*?!()]/g, "[$&]");
  return literal.endsWith("/") ? `${literal}**` : literal;
}

function excludes(): readonly string[] {
  const globs: unknown = workspace.getConfiguration("nosa").get("exclude");
  return Array.isArray(globs) ? globs.filter((glob) => typeof glob === "string") : [];
}

async function changeExcludes(
  folder: WorkspaceFolder,
  change: (globs: readonly string[]) => readonly string[],
): Promise<void> {
  const section = workspace.getConfiguration("nosa", folder.uri);
  const own: unknown = section.inspect("exclude")?.workspaceValue;
  const globs = Array.isArray(own) ? own.filter((glob) => typeof glob === "string") : [];
  await section.update("exclude", change(globs), ConfigurationTarget.Workspace);
}
