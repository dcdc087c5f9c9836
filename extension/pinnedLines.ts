import {
  OverviewRulerLane,
  Range,
  ThemeColor,
  Uri,
  window,
  workspace,
  type Disposable,
  type TextDocument,
  type TextDocumentChangeEvent,
} from "vscode";
import type { Place } from "../engine/protocol";
import { pathInside } from "./asking/subjects";
import type { Pins } from "./pins";
import { folders, rootOf } from "./roots";
import { Scope } from "./util/disposables";

/** Marks pinned lines beside the text, and lets them follow it while it is edited. */
export class PinnedLines implements Disposable {
  readonly #pins: Pins;
  readonly #scope = new Scope();
  readonly #sign;
  readonly #lines;

  constructor(pins: Pins, extensionUri: Uri) {
    this.#pins = pins;
    const icon = (theme: string): Uri => Uri.joinPath(extensionUri, "media", "icons", `pin-${theme}.svg`);
    this.#sign = this.#scope.add(
      window.createTextEditorDecorationType({
        gutterIconSize: "contain",
        light: { gutterIconPath: icon("light") },
        dark: { gutterIconPath: icon("dark") },
      }),
    );
    this.#lines = this.#scope.add(
      window.createTextEditorDecorationType({
        isWholeLine: true,
        overviewRulerColor: new ThemeColor("editorOverviewRuler.infoForeground"),
        overviewRulerLane: OverviewRulerLane.Left,
      }),
    );
    this.#scope.add(pins.onDidChange(() => this.#draw()));
    this.#scope.add(window.onDidChangeVisibleTextEditors(() => this.#draw()));
    this.#scope.add(workspace.onDidChangeTextDocument((event) => this.#follow(event)));
    this.#draw();
  }

  dispose(): void {
    this.#scope.dispose();
  }

  #draw(): void {
    for (const editor of window.visibleTextEditors) {
      const places = placesIn(this.#pins, editor.document);
      const ranges = places.map(({ startLine, endLine }) => new Range(startLine - 1, 0, endLine - 1, 0));
      editor.setDecorations(this.#lines, ranges);
      editor.setDecorations(
        this.#sign,
        ranges.map(({ start }) => new Range(start, start)),
      );
    }
  }

  #follow({ document, contentChanges }: TextDocumentChangeEvent): void {
    // Called with every key: most people have nothing pinned that could move.
    const where = this.#pins.hasLines ? placeOf(document) : undefined;
    if (where === undefined) return;
    const replaced = contentChanges.map(({ range, text }) => ({
      first: range.start.line + 1,
      last: range.end.line + 1,
      lines: text.split("\n").length,
      isFirstGone: range.start.character === 0,
    }));
    void this.#pins.follow(where.root, where.path, replaced);
  }
}

function placesIn(pins: Pins, document: TextDocument): readonly Place[] {
  const where = placeOf(document);
  return where === undefined ? [] : pins.linesOf(where.root, where.path);
}

/** A file of the workspace, as pins name it. */
function placeOf(document: TextDocument): { readonly root: string; readonly path: string } | undefined {
  if (document.uri.scheme !== "file") return undefined;
  for (const folder of folders()) {
    const path = pathInside(folder, document.uri);
    if (path !== undefined) return { root: rootOf(folder), path };
  }
  return undefined;
}
