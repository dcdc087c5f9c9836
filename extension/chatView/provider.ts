import { randomBytes } from "node:crypto";
import {
  Uri,
  commands,
  env,
  l10n,
  window,
  workspace,
  type CancellationToken,
  type Disposable,
  type Webview,
  type WebviewView,
  type WebviewViewProvider,
  type WebviewViewResolveContext,
} from "vscode";
import type { Proposals } from "../apply/proposals";
import type { Engine } from "../client";
import { Failure } from "../errors";
import { page } from "../page";
import { currentFolder, rootOf } from "../roots";
import { Scope } from "../util/disposables";
import { bannerView } from "./banner";
import type { Chat } from "./chat";
import { chooseChat } from "./chooseChat";
import { choosePlace } from "./choosePlace";
import { viewTurn } from "./conversation";
import { parseFromView } from "./fromView";
import type { ChatHistory } from "./history";
import type { FromView, ToView, ViewBanner } from "./messages";
import { viewWords } from "./words";

export interface ChatViewOptions {
  readonly extensionUri: Uri;
  readonly engine: Engine;
  readonly chat: Chat;
  readonly history: ChatHistory;
  readonly proposals: Proposals;
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
  /** Waits for the page that is about to show it. */
  #draft = "";

  constructor(options: ChatViewOptions) {
    this.#options = options;
    this.#scope.add(options.chat.onMessage((message) => this.#tell(message)));
    this.#scope.add(options.engine.onDidChange(() => this.#tellBanner()));
    this.#scope.add(window.onDidChangeActiveTextEditor(() => this.#tellBanner()));
    this.#scope.add(workspace.onDidChangeWorkspaceFolders(() => this.#tellBanner()));
    this.#scope.add(workspace.onDidGrantWorkspaceTrust(() => this.#tellBanner()));
  }

  resolveWebviewView(view: WebviewView, _context: WebviewViewResolveContext, _token: CancellationToken): void {
    const scope = new Scope();
    this.#page?.dispose();
    this.#page = scope;
    this.#webview = view.webview;
    scope.add({ dispose: () => (this.#webview = undefined) });
    scope.add(view.webview.onDidReceiveMessage((raw: unknown) => this.#receive(raw)));
    scope.add(view.onDidDispose(() => scope.dispose()));
    const media = Uri.joinPath(this.#options.extensionUri, "dist", "media");
    view.webview.options = { enableScripts: true, localResourceRoots: [media] };
    view.webview.html = page({
      cspSource: view.webview.cspSource,
      scriptUri: view.webview.asWebviewUri(Uri.joinPath(media, "chat.js")).toString(),
      styleUri: view.webview.asWebviewUri(Uri.joinPath(media, "chat.css")).toString(),
      nonce: randomBytes(16).toString("base64url"),
      title: "Nosa",
      language: env.language,
      data: viewWords(),
    });
  }

  /** Shows an empty conversation; the old one is kept. */
  clear(): void {
    this.#options.chat.clear();
    this.#tellState();
  }

  /** Lets the user go back to a conversation that was kept. */
  async showHistory(): Promise<void> {
    const { chat, history } = this.#options;
    const chosen = await chooseChat(history, chat.id);
    if (chosen === undefined) return;
    if (chosen === "new") chat.clear();
    else chat.show(chosen);
    await this.focus();
    this.#tellState();
  }

  /** Asks in the view, as if it were typed there. */
  async ask(text: string): Promise<void> {
    await this.focus();
    await this.#options.chat.ask(text);
  }

  async focus(): Promise<void> {
    await commands.executeCommand(`${ChatViewProvider.viewId}.focus`);
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
      case "apply":
        return this.#applyCode(message.turnId, message.text);
      case "attach":
        return this.#attach();
      case "detach":
        return chat.detach(message.attachmentId);
      case "fork":
        return this.#fork(message.turnId);
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
      throw new Failure("fileMissing", l10n.t("{0} is no longer there.", workspace.asRelativePath(location.uri)));
    }
  }

  async #applyCode(turnId: string, code: string): Promise<void> {
    const found = this.#options.chat.codeOf(turnId, code);
    if (found !== undefined) await this.#options.proposals.preview(found.what, found.folder);
  }

  async #attach(): Promise<void> {
    const chosen = await choosePlace(this.#options.engine);
    if (chosen !== undefined) this.#options.chat.attach(chosen.what, chosen.label);
    await this.focus();
    this.#tell({ kind: "attachments", attachments: this.#options.chat.attachments });
  }

  #fork(turnId: string): void {
    const text = this.#options.chat.fork(turnId);
    if (text === "") return;
    this.#draft = text;
    this.#tellState();
  }

  #tellState(): void {
    const { chat } = this.#options;
    const turns = chat.conversation.turns.map(viewTurn);
    this.#tell({ kind: "state", turns, banner: this.#banner, attachments: chat.attachments, busy: chat.busy });
    if (this.#draft === "") return;
    this.#tell({ kind: "draft", text: this.#draft });
    this.#draft = "";
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
  if (editor === undefined) throw new Failure("fileMissing", l10n.t("Open a file to insert the code into."));
  await editor.edit((edit) => {
    for (const selection of editor.selections) edit.replace(selection, text);
  });
  await window.showTextDocument(editor.document, { viewColumn: editor.viewColumn });
}
