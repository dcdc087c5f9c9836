import { randomBytes } from "node:crypto";
import {
  Range,
  Uri,
  ViewColumn,
  env,
  l10n,
  window,
  type Disposable,
  type WebviewPanel,
  type WorkspaceFolder,
} from "vscode";
import type { ContextView } from "../../engine/protocol";
import type { Attended, Attention } from "../attention";
import type { Engine } from "../client";
import { Failure, failureFrom, plainFailure } from "../errors";
import { gauges } from "../meter";
import { page } from "../page";
import type { Pins } from "../pins";
import { currentFolder, folders, rootOf } from "../roots";
import { Scope } from "../util/disposables";
import type { FromMap, MapFile, MapWords, ToMap } from "./messages";

export interface ContextMapOptions {
  readonly extensionUri: Uri;
  readonly engine: Engine;
  readonly attention: Attention;
  readonly pins: Pins;
  readonly contextTokensMax: () => number;
  readonly report: (error: unknown) => void;
}

/** The repository drawn by its tokens, lit by what the last answer attended to. One panel a window. */
export class ContextMap implements Disposable {
  readonly #options: ContextMapOptions;
  readonly #scope = new Scope();
  #panel: WebviewPanel | undefined;
  #folder: WorkspaceFolder | undefined;
  #lastGauges = "";
  #lastContext = "";

  constructor(options: ContextMapOptions) {
    this.#options = options;
    this.#scope.add(options.attention.onDidChange(() => this.#drawLast()));
    this.#scope.add(options.pins.onDidChange(() => this.#draw()));
    this.#scope.add(options.engine.onDidChange(() => this.#follow()));
  }

  show(): void {
    const { engine, extensionUri, report } = this.#options;
    this.#folder = currentFolder(engine.status?.contexts ?? []);
    if (this.#folder === undefined) throw plainFailure("noFolder");
    if (this.#panel !== undefined) {
      this.#panel.reveal();
      return this.#draw();
    }
    const media = Uri.joinPath(extensionUri, "dist", "media");
    const options = { enableScripts: true, localResourceRoots: [media], retainContextWhenHidden: false };
    const panel = window.createWebviewPanel("nosa.contextMap", l10n.t("Context Map"), ViewColumn.Active, options);
    const icon = (theme: string): Uri => Uri.joinPath(extensionUri, "media", "icons", `map-${theme}.svg`);
    panel.iconPath = { light: icon("light"), dark: icon("dark") };
    panel.onDidDispose(() => (this.#panel = undefined));
    panel.webview.onDidReceiveMessage((raw: unknown) => {
      const message = parseFromMap(raw);
      if (message !== undefined) this.#act(message).catch(report);
    });
    this.#panel = panel;
    panel.webview.html = page({
      cspSource: panel.webview.cspSource,
      scriptUri: panel.webview.asWebviewUri(Uri.joinPath(media, "contextMap.js")).toString(),
      styleUri: panel.webview.asWebviewUri(Uri.joinPath(media, "contextMap.css")).toString(),
      nonce: randomBytes(16).toString("base64url"),
      title: l10n.t("Context Map"),
      language: env.language,
      data: mapWords(),
    });
  }

  dispose(): void {
    this.#panel?.dispose();
    this.#scope.dispose();
  }

  async #act(message: FromMap): Promise<void> {
    if (message.kind === "ready") {
      this.#lastGauges = "";
      this.#follow();
      return this.#drawNow();
    }
    if (this.#folder === undefined) return;
    const uri = Uri.joinPath(this.#folder.uri, message.path);
    const line = Math.max(0, message.line - 1);
    try {
      await window.showTextDocument(uri, { selection: new Range(line, 0, line, 0), preview: true });
    } catch {
      throw new Failure("fileMissing", l10n.t("{0} is no longer there.", message.path));
    }
  }

  /** Gauges with each status that says something else; the files when the context changed. */
  #follow(): void {
    const { engine, contextTokensMax } = this.#options;
    const { status } = engine;
    if (this.#panel === undefined || status === null) return;
    const shown = gauges(status, folders().map(rootOf), contextTokensMax());
    const text = JSON.stringify(shown);
    if (text !== this.#lastGauges) {
      this.#lastGauges = text;
      this.#tell({ kind: "gauges", gauges: shown });
    }
    const contexts = JSON.stringify(status.contexts.map(({ root, files, tokens }) => [root, files, tokens]));
    if (contexts === this.#lastContext || status.activity.kind === "indexing") return;
    this.#lastContext = contexts;
    this.#draw();
  }

  /** The repository that the last answer was about, where there are several. */
  #drawLast(): void {
    const { attention } = this.#options;
    this.#folder = folders().find((folder) => rootOf(folder) === attention.lastRoot) ?? this.#folder;
    this.#draw();
  }

  #draw(): void {
    if (this.#panel !== undefined) this.#drawNow().catch(this.#options.report);
  }

  async #drawNow(): Promise<void> {
    const { engine, attention, pins } = this.#options;
    if (this.#folder === undefined) return;
    const root = rootOf(this.#folder);
    const view = await contextOf(engine, root);
    const attended = attention.of(root);
    const files = mapFiles(view, attended, (path) => pins.has(root, path) || pins.linesOf(root, path).length > 0);
    this.#tell({ kind: "map", name: this.#folder.name, files, question: attended?.question ?? "" });
  }

  #tell(message: ToMap): void {
    void this.#panel?.webview.postMessage(message);
  }
}

/** What the context holds, with what the last answer attended to. Pure. */
export function mapFiles(
  view: Pick<ContextView, "files">,
  attended: Pick<Attended, "lines"> | undefined,
  isPinned: (path: string) => boolean,
): readonly MapFile[] {
  const lines = attended?.lines ?? [];
  return view.files
    .filter(({ tokens, state }) => tokens > 0 && state.kind !== "leftOut")
    .map(({ path, tokens }) => {
      const own = lines.filter((line) => line.path === path);
      const best = own.toSorted((a, b) => b.share - a.share)[0];
      const share = own.reduce((sum, line) => sum + line.share, 0);
      const [startLine, endLine] = [best?.startLine ?? 0, best?.endLine ?? 0];
      return { path, tokens, share: Math.min(1, share), startLine, endLine, isPinned: isPinned(path) };
    });
}

async function contextOf(engine: Engine, root: string): Promise<Pick<ContextView, "files">> {
  try {
    return await engine.request("nosa/context", { root });
  } catch (error) {
    if (failureFrom(error).kind === "notIndexed") return { files: [] };
    throw error;
  }
}

/** What came out of the page → a message, or undefined when it is none. */
export function parseFromMap(value: unknown): FromMap | undefined {
  if (typeof value !== "object" || value === null || !("kind" in value)) return undefined;
  if (value.kind === "ready") return { kind: "ready" };
  if (value.kind !== "open" || !("path" in value) || !("line" in value)) return undefined;
  const { path, line } = value;
  const isPath = typeof path === "string" && !path.startsWith("/") && !path.split("/").includes("..");
  return isPath && typeof line === "number" && Number.isInteger(line) ? { kind: "open", path, line } : undefined;
}

function mapWords(): MapWords {
  return {
    language: env.language,
    empty: l10n.t("Nosa has not read this repository yet."),
    litBy: l10n.t("Lit by the answer to: {0}"),
    notLit: l10n.t("Ask something: the files that the answer attends to light up."),
    map: l10n.t("Files of the repository, each as large as its tokens"),
    help: l10n.t("Arrow keys move, Enter opens the lines."),
    tokens: l10n.t("{0} tokens"),
    attention: l10n.t("{0}% of the attention"),
    lines: l10n.t("lines {0}-{1}"),
    pinned: l10n.t("pinned"),
  };
}
