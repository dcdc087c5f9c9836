import * as path from "node:path";
import {
  EventEmitter,
  Range,
  Uri,
  WorkspaceEdit,
  commands,
  l10n,
  window,
  workspace,
  type Disposable,
  type DocumentSymbol,
  type TextDocument,
  type TextDocumentContentProvider,
  type WorkspaceFolder,
} from "vscode";
import * as z from "zod/mini";
import { Failure, plainFailure } from "../errors";
import { Scope } from "../util/disposables";
import { placed, type Declaration, type Lines } from "./placement";

/** What is to be applied, as a button carries it. Plain data. */
export interface CodeToApply {
  readonly code: string;
  /** As the answer names it; "" for none. */
  readonly path: string;
  /** Uri of what the question was about; "" for none. */
  readonly about: string;
  readonly lines: Lines | null;
}

interface Proposal {
  readonly target: Uri;
  /** Text of the target when the difference was shown; null for a file that is not there yet. */
  readonly before: string | null;
  readonly after: string;
}

const scheme = "nosa-proposal";

/**
 * Shows what a block of code would change, side by side, and writes it when the person agrees. Nothing is written before,
 * and nothing over what was changed meanwhile. What was written is one step of undo, and is not saved.
 */
export class Proposals implements TextDocumentContentProvider, Disposable {
  static readonly scheme = scheme;
  readonly #scope = new Scope();
  readonly #changed = this.#scope.add(new EventEmitter<Uri>());
  readonly onDidChange = this.#changed.event;
  /** By the uri of the proposed text, while its difference is open. */
  readonly #open = new Map<string, Proposal>();
  #count = 0;

  constructor() {
    this.#scope.add(workspace.registerTextDocumentContentProvider(scheme, this));
    this.#scope.add(workspace.onDidCloseTextDocument(({ uri }) => void this.#open.delete(uri.toString())));
  }

  dispose(): void {
    this.#scope.dispose();
  }

  provideTextDocumentContent(uri: Uri): string {
    return this.#open.get(uri.toString())?.after ?? "";
  }

  /** Opens the difference. Throws a Failure where the code has no place. */
  async preview(what: CodeToApply, folder: WorkspaceFolder | undefined): Promise<void> {
    const target = await targetOf(what, folder);
    if (target === undefined) throw plainFailure("cannotApply");
    const document = await openedOrNone(target);
    const after = document === undefined ? `${what.code.trimEnd()}\n` : await textWith(document, what);
    if (after === document?.getText()) {
      void window.showInformationMessage(l10n.t("{0} has this code already.", workspace.asRelativePath(target)));
      return;
    }
    this.#count += 1;
    const proposed = Uri.from({ scheme, path: target.path, query: `change=${this.#count}` });
    this.#open.set(proposed.toString(), { target, before: document?.getText() ?? null, after });
    const left = document?.uri ?? Uri.from({ scheme, path: target.path, query: "nothing" });
    const name = workspace.asRelativePath(target, false);
    const title =
      document === undefined ? l10n.t("{0} (new, from Nosa)", name) : l10n.t("{0} (change from Nosa)", name);
    await commands.executeCommand("vscode.diff", left, proposed, title, { preview: true });
  }

  /** Writes the change whose difference is shown. */
  async apply(shown: Uri | undefined): Promise<void> {
    const proposal = this.#shown(shown);
    const edit = new WorkspaceEdit();
    const { target, before, after } = proposal;
    if (before === null) {
      edit.createFile(target, { ignoreIfExists: false, contents: Buffer.from(after) });
    } else {
      const document = await workspace.openTextDocument(target);
      if (document.getText() !== before) {
        throw new Failure("cannotApply", l10n.t("The file has changed since. Look at the change once more."));
      }
      const { range, text } = smallestEdit(document, after);
      edit.replace(target, range, text);
    }
    if (!(await workspace.applyEdit(edit))) throw plainFailure("cannotApply");
    await commands.executeCommand("workbench.action.closeActiveEditor");
    await window.showTextDocument(target, { preview: false });
  }

  async discard(shown: Uri | undefined): Promise<void> {
    this.#shown(shown);
    await commands.executeCommand("workbench.action.closeActiveEditor");
  }

  /** The one a button in the editor's title belongs to; the palette gives none, and means the open one. */
  #shown(uri: Uri | undefined): Proposal {
    const key = uri ?? window.activeTextEditor?.document.uri;
    const found = key === undefined ? undefined : this.#open.get(key.toString());
    const only = found ?? [...this.#open.values()].at(-1);
    if (only === undefined) throw plainFailure("cannotApply");
    return only;
  }
}

/** The file the answer names, else what the question was about, else the one that is open. */
async function targetOf(what: CodeToApply, folder: WorkspaceFolder | undefined): Promise<Uri | undefined> {
  const about = what.about === "" ? undefined : Uri.parse(what.about, true);
  if (what.path !== "" && folder !== undefined) {
    const normal = path.posix.normalize(what.path);
    const leaves = normal.startsWith("../") || path.posix.isAbsolute(normal);
    if (!leaves) {
      const named = Uri.joinPath(folder.uri, normal);
      if (about !== undefined && (about.path.endsWith(`/${normal}`) || stemOf(about.path) === stemOf(normal)))
        return about;
      if (normal.includes("/") || (await openedOrNone(named)) !== undefined) return named;
      const [found] = await workspace.findFiles(`**/${normal}`, "**/node_modules/**", 2);
      if (found !== undefined) return found;
    }
  }
  if (about !== undefined) return about;
  const editor =
    window.activeTextEditor ?? window.visibleTextEditors.find(({ document }) => document.uri.scheme === "file");
  return editor?.document.uri.scheme === "file" || editor?.document.uri.scheme === "untitled"
    ? editor.document.uri
    : undefined;
}

/** "fees" of "src/fees.js": models get the ends of names wrong. */
function stemOf(file: string): string {
  return path.posix.basename(file).replace(/\.\w+$/, "");
}

async function openedOrNone(uri: Uri): Promise<TextDocument | undefined> {
  try {
    return await workspace.openTextDocument(uri);
  } catch {
    return undefined;
  }
}

async function textWith(document: TextDocument, { code, lines, about }: CodeToApply): Promise<string> {
  const editor = window.visibleTextEditors.find((each) => each.document === document);
  const selection = editor === undefined || editor.selection.isEmpty ? null : editor.selection;
  const chosen = selection === null ? null : { from: selection.start.line, to: selection.end.line };
  return placed({
    text: document.getText(),
    code,
    selected: about === document.uri.toString() && lines !== null ? lines : chosen,
    cursorLine: editor?.selection.active.line ?? document.lineCount - 1,
    declarations: await declarationsOf(document),
  }).text;
}

async function declarationsOf(document: TextDocument): Promise<readonly Declaration[]> {
  const symbols = await commands.executeCommand<readonly DocumentSymbol[] | undefined>(
    "vscode.executeDocumentSymbolProvider",
    document.uri,
  );
  return flattened(symbols ?? []);
}

function flattened(symbols: readonly DocumentSymbol[]): readonly Declaration[] {
  return symbols.flatMap(({ name, range, children }) => [
    // Some services say "storageFee(parcel)" for a function.
    { name: name.replace(/[(<].*$/s, ""), from: range.start.line, to: range.end.line },
    ...flattened(children),
  ]);
}

/** What lies between the first and the last difference: the rest keeps its cursors, folds and breakpoints. */
function smallestEdit(document: TextDocument, after: string): { readonly range: Range; readonly text: string } {
  const before = document.getText();
  const most = Math.min(before.length, after.length);
  let start = 0;
  while (start < most && before[start] === after[start]) start += 1;
  let end = 0;
  while (end < most - start && before[before.length - 1 - end] === after[after.length - 1 - end]) end += 1;
  const range = new Range(document.positionAt(start), document.positionAt(before.length - end));
  return { range, text: after.slice(start, after.length - end) };
}

/** What a button handed in. */
export function parseCodeToApply(value: unknown): CodeToApply {
  const parsed = codeToApplySchema.safeParse(value);
  if (!parsed.success) throw plainFailure("cannotApply");
  return parsed.data;
}

const codeToApplySchema = z.object({
  code: z.string(),
  path: z.string(),
  about: z.string(),
  lines: z.nullable(z.object({ from: z.int(), to: z.int() })),
});
