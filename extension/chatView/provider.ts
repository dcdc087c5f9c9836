import { randomBytes } from "node:crypto";
import {
  Uri,
  commands,
  env,
  window,
  workspace,
  type CancellationToken,
  type Disposable,
  type Webview,
  type WebviewView,
  type WebviewViewProvider,
  type WebviewViewResolveContext,
} from "vscode";
import type { Engine } from "../client";
import { Failure } from "../errors";
import { currentFolder, rootOf } from "../roots";
import { Scope } from "../util/disposables";
import { bannerView } from "./banner";
import type { Chat } from "./chat";
import { parseFromView } from "./fromView";
import { chatPage } from "./html";
import type { FromView, ToView, ViewBanner } from "./messages";

export interface ChatViewOptions {
  readonly extensionUri: Uri;
  readonly engine: Engine;
  readonly chat: Chat;
  /** Tells the user about a failed action of theirs. */
  readonly report: (error: unknown) => void;
}

/** The webview's life: makes the page, forwards messages both ways, holds no conversation. */
export class ChatViewProvider implements WebviewViewProvider, Disposable {
  static readonly viewId = "nosa.chat";
  readonly #options: ChatViewOptions;
  readonly #scope = new Scope();
  /** What lives as long as one page. */
  #page: Scope | undefined;
  #webview: Webview | undefined;
  #banner: ViewBanner = { text: "", action: null };

  constructor(options: ChatViewOptions) {
    this.#options = options;
    this.#scope.add(options.chat.onMessage((message) => this.#tell(message)));
    this.#scope.add(options.engine.onDidChange(() => this.#tellBanner()));
    this.#scope.add(window.onDidChangeActiveTextEditor(() => this.#tellBanner()));
    this.#scope.add(workspace.onDidChangeWorkspaceFolders(() => this.#tellBanner()));
    this.#scope.add(workspace.onDidGrantWorkspaceTrust(() => this.#tellBanner()));
  }

  resolveWebviewView(view: WebviewView, _context: WebviewViewResolveContext, _token: CancellationToken): void {
    const page = new Scope();
    this.#page?.dispose();
    this.#page = page;
    this.#webview = view.webview;
    page.add({ dispose: () => (this.#webview = undefined) });
    page.add(view.webview.onDidReceiveMessage((raw: unknown) => this.#receive(raw)));
    page.add(view.onDidDispose(() => page.dispose()));
    const media = Uri.joinPath(this.#options.extensionUri, "dist", "media");
    view.webview.options = { enableScripts: true, localResourceRoots: [media] };
    view.webview.html = chatPage({
      cspSource: view.webview.cspSource,
      scriptUri: view.webview.asWebviewUri(Uri.joinPath(media, "chat.js")).toString(),
      styleUri: view.webview.asWebviewUri(Uri.joinPath(media, "chat.css")).toString(),
      nonce: randomBytes(16).toString("base64url"),
    });
  }

  /** Shows an empty conversation. */
  clear(): void {
    this.#options.chat.clear();
    this.#tellState();
  }

  dispose(): void {
    this.#page?.dispose();
    this.#scope.dispose();
  }

  #receive(raw: unknown): void {
    const message = parseFromView(raw);
    if (message === undefined) return;
    this.#act(message).catch(this.#options.report);
  }

  async #act(message: FromView): Promise<void> {
    const { chat } = this.#options;
    switch (message.kind) {
      case "ready":
        this.#banner = this.#currentBanner();
        return this.#tellState();
      case "ask":
        return chat.ask(message.text);
      case "stop":
        return chat.stop();
      case "clear":
        return this.clear();
      case "open":
        return this.#open(message.referenceId);
      case "copy":
        return env.clipboard.writeText(message.text);
      case "insert":
        return insertAtCursor(message.text);
      case "action":
        // Only what the banner offers: the page cannot name a command of its own.
        if (message.command === this.#banner.action?.command) await commands.executeCommand(message.command);
    }
  }

  async #open(referenceId: string): Promise<void> {
    const location = this.#options.chat.location(referenceId);
    if (location === undefined) return;
    try {
      await window.showTextDocument(location.uri, { selection: location.range, preview: true });
    } catch {
      throw new Failure("fileMissing", `${workspace.asRelativePath(location.uri)} is no longer there.`);
    }
  }

  #tellState(): void {
    const { chat } = this.#options;
    this.#tell({ kind: "state", turns: chat.conversation.turns, banner: this.#banner, busy: chat.busy });
  }

  #tellBanner(): void {
    const banner = this.#currentBanner();
    if (JSON.stringify(banner) === JSON.stringify(this.#banner)) return;
    this.#banner = banner;
    this.#tell({ kind: "banner", banner });
  }

  #currentBanner(): ViewBanner {
    const { engine } = this.#options;
    const folder = currentFolder(engine.status?.contexts ?? []);
    return bannerView({
      state: engine.state,
      status: engine.status,
      folder: folder === undefined ? null : { name: folder.name, root: rootOf(folder) },
      isTrusted: workspace.isTrusted,
    });
  }

  #tell(message: ToView): void {
    void this.#webview?.postMessage(message);
  }
}

async function insertAtCursor(text: string): Promise<void> {
  const editor = window.activeTextEditor ?? window.visibleTextEditors[0];
  if (editor === undefined) throw new Failure("fileMissing", "Open a file to insert the code into.");
  await editor.edit((edit) => {
    for (const selection of editor.selections) edit.replace(selection, text);
  });
  await window.showTextDocument(editor.document, { viewColumn: editor.viewColumn });
}
