import type { FromMap, MapWords, ToMap } from "../../extension/contextMap/messages";
import { MapView } from "./view";

declare function acquireVsCodeApi(): { postMessage(message: FromMap): void };

const app = document.getElementById("app");
if (app !== null) {
  const host = acquireVsCodeApi();
  // Written by the extension that made this page.
  const words = JSON.parse(app.dataset["page"] ?? "{}") as MapWords;
  const view = new MapView(app, words, (message) => host.postMessage(message));
  window.addEventListener("message", (event: MessageEvent<ToMap>) => view.received(event.data));
  host.postMessage({ kind: "ready" });
}
