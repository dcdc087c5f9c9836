import {
  DiagnosticSeverity,
  Location,
  Range,
  languages,
  workspace,
  type TextDocument,
  type Uri,
  type WorkspaceFolder,
} from "vscode";
import * as path from "node:path";
import type { Place } from "../../engine/protocol";
import { declaredNames } from "../apply/placement";
import { wholeOf } from "../pins";
import type { Subject } from "./prompts";

/** Something a person attached to a question: what the model is told of it, and what is pinned for it. */
export interface Attachment {
  readonly subject: Subject;
  /** In the context; null where the text is shown instead. */
  readonly pin: Place | null;
  readonly uri: Uri;
  /** Shown to the person, such as "src/fees.ts:14-19". */
  readonly label: string;
  readonly isFolder: boolean;
}

/** Most lines of a compiler's complaints that are passed on. */
const problemsMax = 5;

/**
 * A file, a folder or lines of a file → what is told and pinned. Undefined for what is gone.
 *
 * What the context holds as it stands is pinned there. Text is shown only for the rest: files from elsewhere, files that
 * were left out, changes that are not saved.
 */
export async function attach(
  what: Uri | Location,
  folder: WorkspaceFolder | undefined,
  isRead: (relative: string) => boolean,
): Promise<Attachment | undefined> {
  const uri = what instanceof Location ? what.uri : what;
  const inside = folder === undefined ? undefined : pathInside(folder, uri);
  try {
    if (inside !== undefined && (await isFolder(uri))) return folderAttachment(uri, inside);
    const document = await workspace.openTextDocument(uri);
    const range = what instanceof Location ? wholeLines(document, what.range) : undefined;
    return fileAttachment(document, inside, inside !== undefined && isRead(inside) && !document.isDirty, range);
  } catch {
    return undefined;
  }
}

/** "src/fees.ts" below the folder, with forward slashes; undefined for what lies elsewhere. */
export function pathInside(folder: WorkspaceFolder, uri: Uri): string | undefined {
  if (uri.scheme !== folder.uri.scheme) return undefined;
  const relative = path.relative(folder.uri.fsPath, uri.fsPath).split(path.sep).join("/");
  return relative === ".." || relative.startsWith("../") || path.isAbsolute(relative) ? undefined : relative;
}

async function isFolder(uri: Uri): Promise<boolean> {
  // FileType is a set of flags: a link to a folder has the folder's flag too.
  return ((await workspace.fs.stat(uri)).type & folderFlag) !== 0;
}

const folderFlag = 2;

function folderAttachment(uri: Uri, inside: string): Attachment {
  const name = inside === "" ? "the repository" : `${inside}/`;
  const subject: Subject = { path: name, lines: null, name: "", opening: "", text: "", languageId: "" };
  const pin = inside === "" ? null : wholeOf(`${inside}/`);
  return { subject, pin, uri, label: name, isFolder: true };
}

function fileAttachment(
  document: TextDocument,
  inside: string | undefined,
  isInContext: boolean,
  range: Range | undefined,
): Attachment {
  const lines = range === undefined ? null : { from: range.start.line + 1, to: range.end.line + 1 };
  const shownPath = inside ?? workspace.asRelativePath(document.uri, false);
  const text = isInContext ? "" : document.getText(range);
  const shown = range === undefined ? "" : document.getText(range);
  const [name = ""] = declaredNames(shown.split(/\r?\n/));
  const pin = isInContext ? { path: shownPath, startLine: lines?.from ?? 0, endLine: lines?.to ?? 0 } : null;
  const label =
    lines === null ? shownPath : `${shownPath}:${lines.from === lines.to ? lines.from : `${lines.from}-${lines.to}`}`;
  const subject = { path: shownPath, lines, name, opening: firstLine(shown), text, languageId: document.languageId };
  return { subject, pin, uri: document.uri, label, isFolder: false };
}

/** A selection by hand rarely begins and ends with its lines. One that ends before a line's first character excludes it. */
export function wholeLines(document: TextDocument, range: Range): Range {
  const endsBefore = range.end.character === 0 && range.end.line > range.start.line;
  const last = Math.min(document.lineCount - 1, endsBefore ? range.end.line - 1 : range.end.line);
  return new Range(range.start.line, 0, last, document.lineAt(last).text.length);
}

function firstLine(text: string): string {
  const line = text.split("\n").find((each) => each.trim() !== "") ?? "";
  return line.trim().slice(0, openingCharactersMax);
}

const openingCharactersMax = 120;

/** Errors and warnings of the language services in the attached lines, worst first. */
export function problemsOf(attachments: readonly Attachment[]): readonly string[] {
  return attachments
    .flatMap(({ uri, subject }) =>
      languages
        .getDiagnostics(uri)
        .filter(({ severity }) => severity <= DiagnosticSeverity.Warning)
        .filter(({ range }) => subject.lines === null || touches(range, subject.lines))
        .toSorted((a, b) => a.severity - b.severity)
        .map(({ range, message }) => `${subject.path}:${range.start.line + 1}: ${message}`),
    )
    .slice(0, problemsMax);
}

function touches(range: Range, lines: { readonly from: number; readonly to: number }): boolean {
  return range.start.line + 1 <= lines.to && range.end.line + 1 >= lines.from;
}
