import { Location, Uri, l10n, window, workspace, type QuickPickItem } from "vscode";
import type { Engine } from "../client";
import { failureFrom, plainFailure } from "../errors";
import { currentFolder, rootOf } from "../roots";
import { countText } from "../util/format";

interface PlaceItem extends QuickPickItem {
  readonly what: Uri | Location;
  readonly shown: string;
}

/** Lets the user choose the selection, a file or a folder. Undefined when they turned away. */
export async function choosePlace(
  engine: Engine,
): Promise<{ readonly what: Uri | Location; readonly label: string } | undefined> {
  const folder = currentFolder(engine.status?.contexts ?? []);
  if (folder === undefined) throw plainFailure("noFolder");
  const read = await readFiles(engine, rootOf(folder));
  const paths = [...read.keys()].toSorted();
  const foldersOfThem = [...new Set(paths.flatMap(parentsOf))].toSorted();
  const item = (icon: string, path: string, description = ""): PlaceItem => ({
    label: `$(${icon}) ${path}`,
    description,
    what: Uri.joinPath(folder.uri, path),
    shown: path,
  });
  const items = [
    ...selectionItems(),
    ...paths.map((path) => item("file", path, l10n.t("{0} tokens", countText(read.get(path) ?? 0)))),
    ...foldersOfThem.map((path) => item("folder", path)),
  ];
  const picked = await window.showQuickPick(items, { placeHolder: l10n.t("What is the question about?") });
  return picked === undefined ? undefined : { what: picked.what, label: picked.shown };
}

function selectionItems(): readonly PlaceItem[] {
  const editor = window.activeTextEditor ?? window.visibleTextEditors[0];
  if (editor === undefined || editor.selection.isEmpty) return [];
  const shown = selectionLabel(new Location(editor.document.uri, editor.selection));
  const what = new Location(editor.document.uri, editor.selection);
  return [{ label: `$(selection) ${l10n.t("The selection")}`, description: shown, what, shown }];
}

/** "src/fees.ts:14-19". */
export function selectionLabel({ uri, range }: Location): string {
  const [first, last] = [
    range.start.line + 1,
    range.end.line + (range.end.character === 0 && !range.isSingleLine ? 0 : 1),
  ];
  const path = workspace.asRelativePath(uri, false);
  return first === last ? `${path}:${first}` : `${path}:${first}-${last}`;
}

function parentsOf(path: string): readonly string[] {
  const parts = path.split("/").slice(0, -1);
  return parts.map((_, index) => parts.slice(0, index + 1).join("/"));
}

/** Path → tokens. Nothing was read: then the question itself will say so. */
async function readFiles(engine: Engine, root: string): Promise<ReadonlyMap<string, number>> {
  try {
    const { files } = await engine.request("nosa/context", { root });
    const kept = files.filter(({ state }) => state.kind !== "leftOut");
    return new Map(kept.map(({ path, tokens }) => [path, tokens]));
  } catch (error) {
    if (failureFrom(error).kind === "notIndexed") return new Map();
    throw error;
  }
}
