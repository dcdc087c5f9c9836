import { Location, Uri, window, workspace } from "vscode";
import type { SlashName } from "./asking/slash";
import { selectionLabel } from "./chatView/choosePlace";
import type { Chat } from "./chatView/chat";
import type { ChatViewProvider } from "./chatView/provider";
import { plainFailure } from "./errors";

/** Questions about the code under the cursor, from the editor's menu, the explorer's or the palette. They are asked in our view. */
export class CodeActions {
  readonly #chat: Chat;
  readonly #view: ChatViewProvider;

  constructor(chat: Chat, view: ChatViewProvider) {
    this.#chat = chat;
    this.#view = view;
  }

  /** Asks at once: about the selection, else about what the cursor is in. */
  async ask(command: SlashName): Promise<void> {
    await this.#view.ask(`/${command}`);
  }

  /** Puts the selection, the open file, or what was chosen in the explorer beside the next question. */
  async attach(what: unknown): Promise<void> {
    const editor = window.activeTextEditor;
    if (what instanceof Uri && editor?.document.uri.toString() !== what.toString()) {
      this.#chat.attach(what, workspace.asRelativePath(what, false));
    } else if (editor !== undefined && !editor.selection.isEmpty) {
      const location = new Location(editor.document.uri, editor.selection);
      this.#chat.attach(location, selectionLabel(location));
    } else if (editor !== undefined) {
      this.#chat.attach(editor.document.uri, workspace.asRelativePath(editor.document.uri, false));
    } else throw plainFailure("nothingNamed");
    await this.#view.focus();
  }
}
