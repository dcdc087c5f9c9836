import type { FromView, ToView, ViewWords } from "../../extension/chatView/messages";
import { emptyPage, received, type PageState } from "./state";
import { View } from "./view";

/** What the editor gives to the script of a webview. */
interface Host {
  postMessage(message: FromView): void;
  getState(): unknown;
  setState(state: { readonly draft: string }): void;
}

declare function acquireVsCodeApi(): Host;

const host = acquireVsCodeApi();
const root = document.getElementById("app");
if (root !== null) start(root);

function start(app: HTMLElement): void {
  const view = new View(app, {
    send: (message) => host.postMessage(message),
    // Written by the extension that made this page.
    words: JSON.parse(app.dataset["page"] ?? "{}") as ViewWords,
    draft: keptDraft(host.getState()),
    onDraft: (draft) => host.setState({ draft }),
  });
  let state: PageState = emptyPage;
  let isDrawn = true;

  // Pieces of an answer come faster than the screen: one drawing a frame.
  window.addEventListener("message", (event: MessageEvent<ToView>) => {
    if (event.data.kind === "draft") view.write(event.data.text);
    state = received(state, event.data);
    if (!isDrawn) return;
    isDrawn = false;
    requestAnimationFrame(() => {
      isDrawn = true;
      view.show(state);
    });
  });
  host.postMessage({ kind: "ready" });
}

function keptDraft(kept: unknown): string {
  const hasDraft = typeof kept === "object" && kept !== null && "draft" in kept;
  return hasDraft && typeof kept.draft === "string" ? kept.draft : "";
}
