import {
  Location,
  Uri,
  commands,
  window,
  workspace,
  type DocumentSymbol,
  type Range,
  type TextEditor,
  type WorkspaceFolder,
} from "vscode";
import type { ChatMessage, Place } from "../../engine/protocol";
import type { Engine } from "../client";
import { Failure, failureFrom, plainFailure } from "../errors";
import { wholeOf, type Pins } from "../pins";
import { currentFolder, rootOf } from "../roots";
import { promptText } from "./prompts";
import type { Asked, SlashName } from "./slash";
import { attach, problemsOf, type Attachment } from "./subjects";
import { workingDiff, type WorkingDiff } from "./workingDiff";

/** A question as the engine is asked it. */
export interface Prepared {
  /** The repository it is about; undefined when no folder is open, or none is trusted. */
  readonly folder: WorkspaceFolder | undefined;
  /** "" for none. */
  readonly root: string;
  readonly message: ChatMessage;
  readonly pins: readonly Place[];
  /** Files that the context holds as they are. */
  readonly readPaths: ReadonlySet<string>;
  /** What the question is about, for the person who asked. */
  readonly attachments: readonly Attachment[];
}

export interface Asking {
  readonly engine: Engine;
  readonly pins: Pins;
}

export interface Input extends Asked {
  /** Files, folders and selections that were attached, in the order of the text; strings are shown to the model as they are. */
  readonly references: readonly (Uri | Location | string)[];
}

/** What was typed and attached → what is asked. Throws a Failure when the command has nothing to be about. */
export async function prepare({ engine, pins }: Asking, input: Input): Promise<Prepared> {
  const folder = workspace.isTrusted ? folderOf(engine, input.references) : undefined;
  const root = folder === undefined ? "" : rootOf(folder);
  const readPaths = await pathsInContext(engine, root);
  const named =
    folder === undefined ? [] : pathsIn(input.text, readPaths).map((path) => Uri.joinPath(folder.uri, path));
  const places = [...input.references.filter((each) => typeof each !== "string"), ...named];
  const chosen = places.length > 0 || !wantsSubject(input) ? places : await subjectAtCursor(input);
  const found = await Promise.all(chosen.map((place) => attach(place, folder, (path) => readPaths.has(path))));
  const attachments = unique(found.filter((each) => each !== undefined));
  if (wantsSubject(input) && attachments.length === 0) throw plainFailure("nothingNamed");

  const diff = input.command === "review" ? await reviewed(folder, root) : undefined;
  const text = [...input.references.filter((each) => typeof each === "string"), input.text].join("\n\n").trim();
  const content = promptText({
    command: input.command,
    text: isOnlyPaths(input.text, named.length) ? "" : text,
    subjects: attachments.map(({ subject }) => subject),
    problems: input.command === "fix" ? problemsOf(attachments) : [],
    diff: diff?.text ?? "",
  });
  const changed = (diff?.paths ?? []).map(wholeOf);
  const own = attachments.flatMap(({ pin }) => (pin === null ? [] : [pin]));
  return {
    folder,
    root,
    message: { role: "user", content },
    pins: root === "" ? [] : [...pins.of(root), ...own, ...changed],
    readPaths,
    attachments,
  };
}

/** These need something to be about, and take what the cursor is in when nothing was named. */
const aboutCode: ReadonlySet<SlashName> = new Set(["explain", "impact", "tests", "fix", "docs"]);

function wantsSubject({ command, text }: Input): boolean {
  return command !== undefined && aboutCode.has(command) && text === "";
}

/** The folder of the first thing that was attached, else the one questions are about. */
function folderOf(engine: Engine, references: Input["references"]): WorkspaceFolder | undefined {
  for (const each of references) {
    if (typeof each === "string") continue;
    const folder = workspace.getWorkspaceFolder(each instanceof Location ? each.uri : each);
    if (folder?.uri.scheme === "file") return folder;
  }
  return currentFolder(engine.status?.contexts ?? []);
}

/** What the context holds of a repository, by path. Nothing when it was not read: the question itself says so then. */
async function pathsInContext(engine: Engine, root: string): Promise<ReadonlySet<string>> {
  if (root === "") return new Set();
  try {
    const { files } = await engine.request("nosa/context", { root });
    return new Set(files.filter(({ state }) => state.kind === "fresh").map(({ path }) => path));
  } catch (error) {
    if (failureFrom(error).kind === "notIndexed") return new Set();
    throw error;
  }
}

/** Files of the repository that the words of a question name, such as "src/fees.ts" or "#src/fees.ts". */
export function pathsIn(text: string, known: Pick<ReadonlySet<string>, "has">): readonly string[] {
  const words = text.split(/\s+/).map((word) => word.replace(/^[#`'"(]+/, "").replace(/[`'"),.;:?!]+$/, ""));
  return [...new Set(words.filter((word) => known.has(word)))];
}

/** A question that is a path and nothing else has no words of its own. */
function isOnlyPaths(text: string, named: number): boolean {
  return named > 0 && text.split(/\s+/).filter((word) => word !== "").length === named;
}

/** The selection; else the function or class that the cursor is in; else the file. */
async function subjectAtCursor({ command }: Input): Promise<readonly (Uri | Location)[]> {
  const editor = window.activeTextEditor ?? window.visibleTextEditors[0];
  if (editor === undefined || pathless.has(editor.document.uri.scheme)) {
    // The whole repository can be explained; the others need a piece of it.
    return command === "explain" ? folderUris() : [];
  }
  const { document, selection } = editor;
  if (!selection.isEmpty) return [new Location(document.uri, selection)];
  const around = await symbolAround(editor);
  return [around === undefined ? document.uri : new Location(document.uri, around)];
}

/** Documents that are no code: what an extension says, or shows. */
const pathless: ReadonlySet<string> = new Set(["output", "vscode-chat-editor", "chatSessionInput", "nosa-proposal"]);

function folderUris(): readonly Uri[] {
  return (workspace.workspaceFolders ?? []).slice(0, 1).map(({ uri }) => uri);
}

/** The innermost symbol with a body around the cursor, as the language's own service sees it. */
export async function symbolAround(editor: TextEditor | undefined): Promise<Range | undefined> {
  if (editor === undefined) return undefined;
  const { document, selection } = editor;
  const symbols = await commands.executeCommand<readonly DocumentSymbol[] | undefined>(
    "vscode.executeDocumentSymbolProvider",
    document.uri,
  );
  return innermost(symbols ?? [], selection.active.line);
}

/** Several lines long: a variable or a property is rarely what is meant. */
export function innermost(symbols: readonly DocumentSymbol[], line: number): Range | undefined {
  const around = symbols.find(({ range }) => range.start.line <= line && line <= range.end.line);
  if (around === undefined) return undefined;
  const inner = innermost(around.children, line);
  if (inner !== undefined) return inner;
  return around.range.end.line > around.range.start.line ? around.range : undefined;
}

async function reviewed(folder: WorkspaceFolder | undefined, root: string): Promise<WorkingDiff> {
  if (folder === undefined) throw plainFailure(workspace.isTrusted ? "noFolder" : "untrusted");
  const diff = await workingDiff(root).catch((error: unknown) => {
    throw new Failure("gitFailed", error instanceof Error ? error.message : "");
  });
  if (diff.text === "") throw plainFailure("noChanges");
  return diff;
}

function unique(attachments: readonly Attachment[]): readonly Attachment[] {
  const seen = new Set<string>();
  return attachments.filter(({ label }) => !seen.has(label) && seen.add(label) !== undefined);
}
