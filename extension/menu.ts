import { commands, l10n, window, type QuickPickItem } from "vscode";
import type { EngineStatus } from "../engine/protocol";
import type { Engine } from "./client";
import { statusView, type StatusInput } from "./statusBar";

interface MenuItem extends QuickPickItem {
  readonly command: string;
}

/** What a click on the status bar opens: how things stand, and what can be done about it. */
export async function showMenu(engine: Engine, roots: readonly string[], completionsEnabled: boolean): Promise<void> {
  const input = { state: engine.state, status: engine.status, roots, completionsEnabled };
  const picked = await window.showQuickPick(menuItems(input), {
    title: menuTitle(input),
    placeHolder: l10n.t("What would you like to do?"),
  });
  if (picked !== undefined) await commands.executeCommand(picked.command);
}

export function menuTitle(input: StatusInput): string {
  return statusView(input).label;
}

/** The likeliest first: what is missing, else asking. */
export function menuItems(input: StatusInput): readonly MenuItem[] {
  const { status, roots, completionsEnabled } = input;
  const ask = item("comment-discussion", l10n.t("Ask Nosa"), "nosa.ask");
  const index = item(
    "book",
    isRead(status, roots) ? l10n.t("Read What Changed") : l10n.t("Index Repository"),
    "nosa.indexRepository",
  );
  const model = item("package", l10n.t("Select Model"), "nosa.selectModel", status?.model?.name);
  const toggle = item(
    completionsEnabled ? "circle-slash" : "sparkle",
    completionsEnabled ? l10n.t("Turn Completions Off") : l10n.t("Turn Completions On"),
    "nosa.toggleCompletions",
  );
  const map = item("layout", l10n.t("Show Context Map"), "nosa.showContextMap");
  const care = [
    item("trash", l10n.t("Forget Repository"), "nosa.forgetRepository"),
    item("debug-restart", l10n.t("Restart Engine"), "nosa.restartEngine", status?.device),
    item("output", l10n.t("Show Log"), "nosa.showLog"),
    item("settings-gear", l10n.t("Settings"), "nosa.openSettings"),
  ];
  if (input.state.kind === "failed") return [...care.slice(1, 3), ask, index, model, toggle, ...care.slice(3)];
  if (status?.activity.kind === "indexing") {
    const pause = item("debug-pause", l10n.t("Pause Indexing"), "nosa.pauseIndexing");
    return [pause, ask, model, toggle, ...care];
  }
  if (status?.model === null) {
    return [item("cloud-download", l10n.t("Download Recommended Model"), "nosa.downloadModel"), model, toggle, ...care];
  }
  return isRead(status, roots) ? [ask, map, index, model, toggle, ...care] : [index, ask, model, toggle, ...care];
}

function isRead(status: EngineStatus | null, roots: readonly string[]): boolean {
  return status?.contexts.some((context) => roots.includes(context.root) && context.tokens > 0) ?? false;
}

function item(icon: string, label: string, command: string, description = ""): MenuItem {
  return { label: `$(${icon}) ${label}`, description, command };
}
