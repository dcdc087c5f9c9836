import {
  EventEmitter,
  MarkdownString,
  ThemeIcon,
  TreeItem,
  TreeItemCollapsibleState,
  Uri,
  window,
  type Disposable,
  type TreeDataProvider,
} from "vscode";
import type { ContextFile, ContextView, FileState, LeftOutReason } from "../engine/protocol";
import type { Engine } from "./client";
import { contextTree, type ContextNode } from "./contextTree";
import { failureFrom } from "./errors";
import { folders, rootOf } from "./roots";
import { Scope } from "./util/disposables";
import { bytesText, countText, plural } from "./util/format";

type Node =
  | { readonly kind: "root"; readonly name: string; readonly view: ContextView; readonly children: readonly Node[] }
  | { readonly kind: "folder"; readonly node: Extract<ContextNode, { kind: "folder" }>; readonly root: string }
  | { readonly kind: "file"; readonly file: ContextFile; readonly root: string };

/** The files of each repository's context: tokens, state, and why some are left out. */
export class ContextTreeView implements TreeDataProvider<Node>, Disposable {
  readonly #engine: Engine;
  readonly #scope = new Scope();
  readonly #changed = this.#scope.add(new EventEmitter<undefined>());
  readonly onDidChangeTreeData = this.#changed.event;
  #lastSeen = "";

  constructor(engine: Engine) {
    this.#engine = engine;
    this.#scope.add(engine.onDidChange(() => this.#refreshWhenRead()));
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
        return node.node.children.map((child) => nodeOf(child, node.root));
      case "file":
        return [];
    }
  }

  getTreeItem(node: Node): TreeItem {
    switch (node.kind) {
      case "root":
        return rootItem(node.name, node.view);
      case "folder":
        return folderItem(node.node);
      case "file":
        return fileItem(node.file, node.root);
    }
  }

  async #roots(): Promise<Node[]> {
    if (this.#engine.state.kind !== "connected") return [];
    const views = await Promise.all(folders().map((folder) => this.#root(folder.name, rootOf(folder))));
    return views.filter((view) => view !== undefined);
  }

  async #root(name: string, root: string): Promise<Node | undefined> {
    try {
      const view = await this.#engine.request("nosa/context", { root });
      if (view.files.length === 0) return undefined;
      const children = contextTree(view.files).map((child) => nodeOf(child, root));
      return { kind: "root", name, view, children };
    } catch (error) {
      // Nothing read yet: the view's own words offer to read it.
      if (failureFrom(error).kind === "notIndexed") return undefined;
      throw error;
    }
  }

  /** The status comes ten times a second; the tree is asked for only when the contexts themselves changed. */
  #refreshWhenRead(): void {
    const { state, status } = this.#engine;
    const contexts = status?.contexts.map(({ root, files, tokens, complete }) => [root, files, tokens, complete]);
    const isIndexing = status?.activity.kind === "indexing";
    const seen = JSON.stringify([state.kind, isIndexing, isIndexing ? [] : contexts]);
    if (seen === this.#lastSeen) return;
    this.#lastSeen = seen;
    this.refresh();
  }
}

function nodeOf(node: ContextNode, root: string): Node {
  return node.kind === "file" ? { kind: "file", file: node.file, root } : { kind: "folder", node, root };
}

function rootItem(name: string, view: ContextView): TreeItem {
  const item = new TreeItem(name, TreeItemCollapsibleState.Expanded);
  item.description = `${countText(view.tokens)} tokens · ${bytesText(view.bytesOnDisk)} on disk`;
  item.tooltip = `${view.root}\n${plural(view.files.length, "file")}\n${bytesText(view.bytesInMemory)} in memory`;
  item.iconPath = new ThemeIcon("root-folder");
  item.contextValue = "nosa.root";
  return item;
}

function folderItem(node: Extract<ContextNode, { kind: "folder" }>): TreeItem {
  const item = new TreeItem(node.name, TreeItemCollapsibleState.Collapsed);
  item.description = node.tokens > 0 ? countText(node.tokens) : "";
  item.iconPath = ThemeIcon.Folder;
  return item;
}

function fileItem(file: ContextFile, root: string): TreeItem {
  const uri = Uri.joinPath(Uri.file(root), file.path);
  const item = new TreeItem(file.path.split("/").at(-1) ?? file.path, TreeItemCollapsibleState.None);
  item.description = fileText(file);
  item.tooltip = new MarkdownString(`${file.path}\n\n${fileText(file)}`);
  item.iconPath = new ThemeIcon(stateIcons[file.state.kind]);
  item.command = { title: "Open", command: "vscode.open", arguments: [uri] };
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
      return `${countText(tokens)} tokens`;
    case "stale":
      return `${countText(tokens)} tokens, changed since`;
    case "reading":
      return "being read";
    case "waiting":
      return "not read yet";
    case "leftOut":
      return `left out: ${reasons[state.reason]}`;
  }
}

const reasons: Readonly<Record<LeftOutReason, string>> = {
  ignored: "an ignore file names it",
  excluded: "the settings exclude it",
  tooLarge: "too large",
  binary: "not text",
  secret: "may hold a secret",
  generated: "generated",
  unreadable: "could not be read",
  link: "a symbolic link",
  budget: "no room in the context",
};
