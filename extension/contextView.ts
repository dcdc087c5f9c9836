import {
  EventEmitter,
  MarkdownString,
  ThemeIcon,
  TreeItem,
  TreeItemCollapsibleState,
  Uri,
  l10n,
  window,
  type Disposable,
  type TreeDataProvider,
} from "vscode";
import type { ContextFile, ContextView, FileState, LeftOutReason } from "../engine/protocol";
import type { Engine } from "./client";
import { contextTree, type ContextNode } from "./contextTree";
import { failureFrom } from "./errors";
import { gauges, type Gauge } from "./meter";
import type { Pins } from "./pins";
import { rangeOfLines } from "./references";
import { folders, rootOf } from "./roots";
import { Scope } from "./util/disposables";
import { bytesText, countText, filesText } from "./util/format";

/** What a command of the tree is given. */
export interface PlaceNode {
  readonly kind: "folder" | "file" | "lines";
  readonly root: string;
  /** Relative to the root; a folder's ends with a slash. */
  readonly path: string;
  /** Of lines alone. */
  readonly startLine?: number;
  readonly endLine?: number;
}

type Node =
  | { readonly kind: "gauge"; readonly id: Gauge["id"]; readonly first: Gauge }
  | { readonly kind: "root"; readonly name: string; readonly view: ContextView; readonly children: readonly Node[] }
  | (PlaceNode & { readonly kind: "folder"; readonly node: Extract<ContextNode, { kind: "folder" }> })
  | (PlaceNode & { readonly kind: "file"; readonly file: ContextFile })
  | (PlaceNode & { readonly kind: "lines"; readonly startLine: number; readonly endLine: number });

export interface ContextTreeOptions {
  readonly engine: Engine;
  readonly pins: Pins;
  readonly contextTokensMax: () => number;
}

/** Budgets, and the files of each repository's context: tokens, state, and why some are left out. */
export class ContextTreeView implements TreeDataProvider<Node>, Disposable {
  readonly #options: ContextTreeOptions;
  readonly #scope = new Scope();
  readonly #changed = this.#scope.add(new EventEmitter<Node | undefined>());
  readonly onDidChangeTreeData = this.#changed.event;
  /** The tree is told of a gauge that changed by the object it was given for it. */
  readonly #gaugeNodes = new Map<Gauge["id"], Extract<Node, { kind: "gauge" }>>();
  /** Files and folders that it was given, by root and path. */
  readonly #places = new Map<string, Node>();
  /** What is pinned of each, as JSON. */
  #pinned: ReadonlyMap<string, string> = new Map();
  /** What each gauge was last drawn with. */
  readonly #gauges = new Map<Gauge["id"], Gauge>();
  #lastSeen = "";

  constructor(options: ContextTreeOptions) {
    this.#options = options;
    this.#pinned = this.#pinnedPlaces();
    this.#scope.add(options.engine.onDidChange(() => this.#follow()));
    this.#scope.add(options.pins.onDidChange(() => this.#followPins()));
    this.#scope.add(window.createTreeView("nosa.context", { treeDataProvider: this, showCollapseAll: true }));
  }

  refresh(): void {
    this.#changed.fire(undefined);
  }

  dispose(): void {
    this.#scope.dispose();
  }

  async getChildren(node?: Node): Promise<Node[]> {
    if (node === undefined) return this.#roots();
    switch (node.kind) {
      case "root":
        return [...node.children];
      case "folder":
        return node.node.children.map((child) => this.#place(child, node.root, node.path));
      case "file":
        return this.#options.pins
          .linesOf(node.root, node.path)
          .map((place): Node => ({ kind: "lines", root: node.root, ...place }));
      case "lines":
      case "gauge":
        return [];
    }
  }

  getTreeItem(node: Node): TreeItem {
    const { pins } = this.#options;
    switch (node.kind) {
      case "gauge":
        return gaugeItem(this.#gauges.get(node.id) ?? node.first);
      case "root":
        return rootItem(node.name, node.view);
      case "folder":
        return folderItem(node.node, pins.has(node.root, node.path));
      case "file":
        return fileItem(node.file, node.root, {
          isPinned: pins.has(node.root, node.path),
          hasPinnedLines: pins.linesOf(node.root, node.path).length > 0,
        });
      case "lines":
        return linesItem(node);
    }
  }

  async #roots(): Promise<Node[]> {
    const { engine } = this.#options;
    if (engine.state.kind !== "connected") return [];
    const views = await Promise.all(folders().map((folder) => this.#root(folder.name, rootOf(folder))));
    const found = views.filter((view) => view !== undefined);
    return found.length === 0 && engine.status?.activity.kind !== "indexing" ? [] : [...this.#shownGauges(), ...found];
  }

  async #root(name: string, root: string): Promise<Node | undefined> {
    try {
      const view = await this.#options.engine.request("nosa/context", { root });
      if (view.files.length === 0) return undefined;
      const children = contextTree(view.files).map((child) => this.#place(child, root, ""));
      return { kind: "root", name, view, children };
    } catch (error) {
      // Nothing read yet: the view's own words offer to read it.
      if (failureFrom(error).kind === "notIndexed") return undefined;
      throw error;
    }
  }

  #place(child: ContextNode, root: string, above: string): Node {
    const node = nodeOf(child, root, above);
    this.#places.set(placeKey(node.root, node.path), node);
    return node;
  }

  #shownGauges(): readonly Node[] {
    return this.#freshGauges().map((gauge) => {
      const node = { kind: "gauge", id: gauge.id, first: gauge } as const;
      this.#gaugeNodes.set(gauge.id, node);
      this.#gauges.set(gauge.id, gauge);
      return node;
    });
  }

  #freshGauges(): readonly Gauge[] {
    const { engine, contextTokensMax } = this.#options;
    return engine.status === null ? [] : gauges(engine.status, folders().map(rootOf), contextTokensMax());
  }

  /**
   * The status comes ten times a second. The files are asked for only when the contexts themselves changed; the gauges
   * follow every change of what they say.
   */
  #follow(): void {
    const { state, status } = this.#options.engine;
    const contexts = status?.contexts.map(({ root, files, tokens, complete }) => [root, files, tokens, complete]);
    const isIndexing = status?.activity.kind === "indexing";
    const seen = JSON.stringify([state.kind, isIndexing, isIndexing ? [] : contexts]);
    if (seen !== this.#lastSeen) {
      this.#lastSeen = seen;
      return this.refresh();
    }
    for (const gauge of this.#freshGauges()) {
      const node = this.#gaugeNodes.get(gauge.id);
      if (node === undefined || this.#gauges.get(gauge.id)?.text === gauge.text) continue;
      this.#gauges.set(gauge.id, gauge);
      this.#changed.fire(node);
    }
  }

  /** Draws anew only the rows that something was pinned of, or is not any more: a menu that is open on another one stays of use. */
  #followPins(): void {
    const before = this.#pinned;
    this.#pinned = this.#pinnedPlaces();
    for (const [key, node] of this.#places) if (before.get(key) !== this.#pinned.get(key)) this.#changed.fire(node);
  }

  #pinnedPlaces(): ReadonlyMap<string, string> {
    const { pins } = this.#options;
    const all = folders().flatMap((folder) => {
      const root = rootOf(folder);
      return pins.of(root).map(({ path }) => [root, path] as const);
    });
    return new Map(all.map(([root, path]) => [placeKey(root, path), pinnedText(pins, root, path)]));
  }
}

function pinnedText(pins: Pins, root: string, path: string): string {
  return JSON.stringify([pins.has(root, path), pins.linesOf(root, path)]);
}

function placeKey(root: string, path: string): string {
  return `${root}\n${path}`;
}

function nodeOf(node: ContextNode, root: string, above: string): Node & PlaceNode {
  if (node.kind === "file") return { kind: "file", file: node.file, root, path: node.file.path };
  return { kind: "folder", node, root, path: `${above}${node.name}/` };
}

const gaugeIcons: Readonly<Record<Gauge["id"], string>> = {
  tokens: "book",
  device: "circuit-board",
  memory: "dashboard",
  disk: "database",
};

function gaugeItem(gauge: Gauge): TreeItem {
  const item = new TreeItem(gauge.label, TreeItemCollapsibleState.None);
  item.id = `gauge-${gauge.id}`;
  item.description = gauge.percent > 0 ? `${gauge.text} · ${gauge.percent}%` : gauge.text;
  item.tooltip = new MarkdownString(`${gauge.label}: ${gauge.text}`);
  item.iconPath = new ThemeIcon(gaugeIcons[gauge.id]);
  item.contextValue = "nosa.gauge";
  item.accessibilityInformation = { label: `${gauge.label}: ${gauge.text}` };
  return item;
}

function rootItem(name: string, view: ContextView): TreeItem {
  const item = new TreeItem(name, TreeItemCollapsibleState.Expanded);
  item.description = l10n.t("{0} tokens", countText(view.tokens));
  const sizes = l10n.t("{0} in memory, {1} on disk", bytesText(view.bytesInMemory), bytesText(view.bytesOnDisk));
  item.tooltip = `${view.root}\n${filesText(view.files.length)}\n${sizes}`;
  item.iconPath = new ThemeIcon("root-folder");
  item.contextValue = "nosa.root";
  return item;
}

function folderItem(node: Extract<ContextNode, { kind: "folder" }>, isPinned: boolean): TreeItem {
  const item = new TreeItem(node.name, TreeItemCollapsibleState.Collapsed);
  const tokens = node.tokens > 0 ? countText(node.tokens) : "";
  item.description = isPinned ? [l10n.t("pinned"), tokens].filter((part) => part !== "").join(" · ") : tokens;
  item.iconPath = isPinned ? new ThemeIcon("pinned") : ThemeIcon.Folder;
  item.contextValue = isPinned ? "nosa.folder.pinned" : "nosa.folder";
  return item;
}

function fileItem(
  file: ContextFile,
  root: string,
  { isPinned, hasPinnedLines }: { readonly isPinned: boolean; readonly hasPinnedLines: boolean },
): TreeItem {
  const uri = Uri.joinPath(Uri.file(root), file.path);
  const open = hasPinnedLines ? TreeItemCollapsibleState.Expanded : TreeItemCollapsibleState.None;
  const item = new TreeItem(file.path.split("/").at(-1) ?? file.path, open);
  const isLeftOut = file.state.kind === "leftOut";
  item.description = isPinned ? `${l10n.t("pinned")} · ${fileText(file)}` : fileText(file);
  item.tooltip = new MarkdownString(`${file.path}\n\n${fileText(file)}`);
  item.iconPath = new ThemeIcon(isPinned ? "pinned" : stateIcons[file.state.kind]);
  item.command = { title: l10n.t("Open"), command: "vscode.open", arguments: [uri] };
  item.contextValue = isLeftOut ? `nosa.leftOut.${file.state.reason}` : isPinned ? "nosa.file.pinned" : "nosa.file";
  return item;
}

/** Lines of a file that are pinned. */
function linesItem({ root, path, startLine, endLine }: Extract<Node, { kind: "lines" }>): TreeItem {
  const label = startLine === endLine ? l10n.t("line {0}", startLine) : l10n.t("lines {0}-{1}", startLine, endLine);
  const item = new TreeItem(label, TreeItemCollapsibleState.None);
  item.description = l10n.t("pinned");
  item.tooltip = `${path}:${startLine}-${endLine}`;
  item.iconPath = new ThemeIcon("pinned");
  const selection = rangeOfLines(startLine - 1, endLine - 1);
  const uri = Uri.joinPath(Uri.file(root), path);
  item.command = { title: l10n.t("Open"), command: "vscode.open", arguments: [uri, { selection }] };
  item.contextValue = "nosa.lines";
  return item;
}

const stateIcons: Readonly<Record<FileState["kind"], string>> = {
  fresh: "pass",
  stale: "history",
  reading: "loading~spin",
  waiting: "circle-outline",
  leftOut: "circle-slash",
};

export function fileText({ state, tokens }: ContextFile): string {
  switch (state.kind) {
    case "fresh":
      return l10n.t("{0} tokens", countText(tokens));
    case "stale":
      return l10n.t("{0} tokens, changed since", countText(tokens));
    case "reading":
      return l10n.t("being read");
    case "waiting":
      return l10n.t("not read yet");
    case "leftOut":
      return l10n.t("left out: {0}", reasonText(state.reason));
  }
}

function reasonText(reason: LeftOutReason): string {
  switch (reason) {
    case "ignored":
      return l10n.t("an ignore file names it");
    case "excluded":
      return l10n.t("the settings exclude it");
    case "tooLarge":
      return l10n.t("too large");
    case "binary":
      return l10n.t("not text");
    case "secret":
      return l10n.t("may hold a secret");
    case "generated":
      return l10n.t("generated");
    case "unreadable":
      return l10n.t("could not be read");
    case "link":
      return l10n.t("a symbolic link");
    case "budget":
      return l10n.t("no room in the context");
  }
}
