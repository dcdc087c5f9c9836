/**
 * Stands in for the editor's module in unit tests: the values that our code makes or compares, with the behaviour it
 * relies on, and recorders where it calls the editor. Nothing more; what is missing here fails in the test at once.
 */

export class Position {
  readonly line: number;
  readonly character: number;

  constructor(line: number, character: number) {
    this.line = line;
    this.character = character;
  }

  isEqual(other: Position): boolean {
    return this.line === other.line && this.character === other.character;
  }
}

export class Range {
  readonly start: Position;
  readonly end: Position;

  get isSingleLine(): boolean {
    return this.start.line === this.end.line;
  }

  constructor(startLine: number | Position, startCharacter: number | Position, endLine = 0, endCharacter = 0) {
    this.start = typeof startLine === "number" ? new Position(startLine, Number(startCharacter)) : startLine;
    this.end = typeof startCharacter === "number" ? new Position(endLine, endCharacter) : startCharacter;
  }
}

export class Uri {
  readonly scheme: string;
  readonly path: string;

  constructor(scheme: string, path: string) {
    this.scheme = scheme;
    this.path = path;
  }

  static from(parts: { readonly scheme: string; readonly path: string }): Uri {
    return new Uri(parts.scheme, parts.path);
  }

  static file(path: string): Uri {
    return new Uri("file", path);
  }

  static parse(value: string): Uri {
    const [scheme = "", path = ""] = value.split(/:(?:\/\/)?/);
    return new Uri(scheme, path);
  }

  static joinPath(base: Uri, ...parts: readonly string[]): Uri {
    return new Uri(base.scheme, [base.path, ...parts].join("/"));
  }

  get fsPath(): string {
    return this.path;
  }

  toString(): string {
    return `${this.scheme}://${this.path}`;
  }
}

export class Location {
  readonly uri: Uri;
  readonly range: Range;

  constructor(uri: Uri, range: Range) {
    this.uri = uri;
    this.range = range;
  }
}

export class InlineCompletionItem {
  insertText: string | { readonly value: string };
  range: Range | undefined;
  command: { readonly command: string; readonly arguments?: readonly unknown[] } | undefined;

  constructor(
    insertText: string | { readonly value: string },
    range?: Range,
    command?: { readonly command: string; readonly arguments?: readonly unknown[] },
  ) {
    this.insertText = insertText;
    this.range = range;
    this.command = command;
  }
}

export const InlineCompletionTriggerKind = { Invoke: 0, Automatic: 1 } as const;
export const QuickPickItemKind = { Separator: -1, Default: 0 } as const;
export const LanguageModelChatMessageRole = { User: 1, Assistant: 2 } as const;
export const ConfigurationTarget = { Global: 1, Workspace: 2, WorkspaceFolder: 3 } as const;
export const ProgressLocation = { SourceControl: 1, Window: 10, Notification: 15 } as const;
export const StatusBarAlignment = { Left: 1, Right: 2 } as const;
export const TreeItemCollapsibleState = { None: 0, Collapsed: 1, Expanded: 2 } as const;

export class LanguageModelTextPart {
  readonly value: string;

  constructor(value: string) {
    this.value = value;
  }
}

export const LanguageModelChatToolMode = { Auto: 1, Required: 2 } as const;

export class LanguageModelToolCallPart {
  readonly callId: string;
  readonly name: string;
  readonly input: object;

  constructor(callId: string, name: string, input: object) {
    this.callId = callId;
    this.name = name;
    this.input = input;
  }
}

export class LanguageModelToolResultPart {
  readonly callId: string;
  readonly content: readonly unknown[];

  constructor(callId: string, content: readonly unknown[]) {
    this.callId = callId;
    this.content = content;
  }
}

/** English: a bundle is the editor's business. */
export const l10n = {
  bundle: undefined,
  t: (message: string, ...values: readonly (string | number | boolean)[]): string =>
    message.replace(/\{(\d+)\}/g, (hole, index: string) => String(values[Number(index)] ?? hole)),
};

export const env = { language: "en" };

export class ThemeIcon {
  static readonly Folder = new ThemeIcon("folder");
  readonly id: string;

  constructor(id: string) {
    this.id = id;
  }
}

export class ThemeColor {
  readonly id: string;

  constructor(id: string) {
    this.id = id;
  }
}

export class EventEmitter<T> {
  readonly #listeners = new Set<(value: T) => void>();

  readonly event = (listener: (value: T) => void): { dispose: () => void } => {
    this.#listeners.add(listener);
    return { dispose: () => this.#listeners.delete(listener) };
  };

  fire(value: T): void {
    for (const listener of [...this.#listeners]) listener(value);
  }

  dispose(): void {
    this.#listeners.clear();
  }
}

export class CancellationTokenSource {
  readonly #cancelled = new EventEmitter<void>();
  #isCancelled = false;

  get token(): { readonly isCancellationRequested: boolean; onCancellationRequested: EventEmitter<void>["event"] } {
    const isCancelled = (): boolean => this.#isCancelled;
    return {
      get isCancellationRequested() {
        return isCancelled();
      },
      onCancellationRequested: this.#cancelled.event,
    };
  }

  cancel(): void {
    if (this.#isCancelled) return;
    this.#isCancelled = true;
    this.#cancelled.fire();
  }

  dispose(): void {
    this.#cancelled.dispose();
  }
}

export class CancellationError extends Error {
  constructor() {
    super("Canceled");
    this.name = "Canceled";
  }
}

export class MarkdownString {
  readonly value: string;

  constructor(value: string) {
    this.value = value;
  }
}

export class ChatRequestTurn {
  readonly prompt: string;

  constructor(prompt: string) {
    this.prompt = prompt;
  }
}

export class ChatResponseTurn {
  readonly response: readonly unknown[];
  readonly result: object;

  constructor(response: readonly unknown[], result: object = {}) {
    this.response = response;
    this.result = result;
  }
}

export class ChatResponseMarkdownPart {
  readonly value: MarkdownString;

  constructor(value: string) {
    this.value = new MarkdownString(value);
  }
}

/** Refuses until a test says, by spying on it, what the editor does. */
function unexpected(name: string): (...args: readonly unknown[]) => never {
  return () => {
    throw new Error(`The test did not expect a call of ${name}.`);
  };
}

/** No folder open, nothing configured, trusted. */
export const workspace = {
  workspaceFolders: undefined as readonly { readonly name: string; readonly uri: Uri }[] | undefined,
  isTrusted: true,
  getConfiguration: () => ({ get: (_name: string, fallback?: unknown) => fallback }),
  getWorkspaceFolder: () => undefined,
  fs: { stat: () => Promise.resolve({ type: 1 }) },
  asRelativePath: (uri: Uri) => uri.path.replace(/^\/code\/\w+\//, ""),
  openTextDocument: unexpected("workspace.openTextDocument"),
};

export const window = {
  activeTextEditor: undefined,
  visibleTextEditors: [],
  showInformationMessage: unexpected("window.showInformationMessage"),
  showErrorMessage: unexpected("window.showErrorMessage"),
  showQuickPick: unexpected("window.showQuickPick"),
  withProgress: unexpected("window.withProgress"),
};

export const chat = { createChatParticipant: unexpected("chat.createChatParticipant") };
export const commands = {
  registerCommand: unexpected("commands.registerCommand"),
  executeCommand: unexpected("commands.executeCommand"),
};
export const lm = {};
