import {
  CancellationTokenSource,
  ProgressLocation,
  QuickPickItemKind,
  ThemeIcon,
  commands,
  l10n,
  window,
  type CancellationToken,
  type Disposable,
  type Progress,
  type QuickInputButton,
  type QuickPick,
  type QuickPickItem,
} from "vscode";
import type { DownloadProgress, ModelEntry } from "../engine/protocol";
import type { Engine } from "./client";
import { isCancellation, plainFailure } from "./errors";
import { changeSetting } from "./settings";
import { Scope } from "./util/disposables";
import { bytesText, percentOf } from "./util/format";

/** How often the list shows how far downloads have come. */
const drawnEachMs = 1_500;

interface Download {
  readonly cancel: CancellationTokenSource;
  progress: DownloadProgress | undefined;
}

/** The list of models: choose one, fetch it, pause and go on with that, delete it. Owns the downloads of this window. */
export class Models implements Disposable {
  readonly #engine: Engine;
  readonly #report: (error: unknown) => void;
  readonly #downloads = new Map<string, Download>();

  constructor(engine: Engine, report: (error: unknown) => void) {
    this.#engine = engine;
    this.#report = report;
  }

  dispose(): void {
    for (const { cancel } of this.#downloads.values()) cancel.cancel();
  }

  /** Shows the list, live; the chosen one is fetched where needed, and becomes the one in use. */
  async select(): Promise<void> {
    const choice = await this.#chooseFromList();
    if (choice === undefined) return;
    if (choice.kind === "file") return this.#selectFile();
    await this.#use(choice.entry);
  }

  /** Fetches the best model for this machine and makes it the one in use. */
  async downloadRecommended(): Promise<void> {
    const entries = await this.#engine.request("nosa/models", {});
    const best = recommendedModel(entries);
    if (best === undefined) throw plainFailure("modelMissing");
    await this.#use(best);
    const index = l10n.t("Index Repository");
    const next = await window.showInformationMessage(
      l10n.t("{0} is ready. Let Nosa read the repository next.", best.name),
      index,
    );
    if (next !== undefined) await commands.executeCommand("nosa.indexRepository");
  }

  async #chooseFromList(): Promise<Choice | undefined> {
    let entries = await this.#engine.request("nosa/models", {});
    const scope = new Scope();
    const pick = scope.add(window.createQuickPick<ModelItem>());
    pick.title = this.#engine.status?.device ?? "";
    pick.placeholder = l10n.t("Which model should answer and complete?");
    pick.matchOnDescription = true;
    pick.matchOnDetail = true;
    const draw = (): void => drawKeepingPlace(pick, modelItems(entries, this.#currentId(), this.#progress()));
    const refresh = async (): Promise<void> => {
      entries = await this.#engine.request("nosa/models", {});
      draw();
    };
    draw();
    // Enter on a list that was only looked at changes nothing.
    pick.activeItems = pick.items.filter(({ id }) => id !== "" && id === this.#currentId());
    // A list that is drawn anew under the pointer swallows the click.
    const timer = setInterval(() => this.#downloads.size > 0 && draw(), drawnEachMs);
    scope.add({ dispose: () => clearInterval(timer) });
    scope.add(
      pick.onDidTriggerItemButton(({ item, button }) => {
        if (item.choice?.kind !== "known") return;
        this.#press(button, item.choice.entry).then(refresh).catch(this.#report);
        draw();
      }),
    );
    try {
      return await new Promise<Choice | undefined>((resolve) => {
        scope.add(pick.onDidAccept(() => resolve(pick.selectedItems[0]?.choice ?? undefined)));
        scope.add(pick.onDidHide(() => resolve(undefined)));
        pick.show();
      });
    } finally {
      scope.dispose();
    }
  }

  /** A button of the list. */
  async #press(button: QuickInputButton, entry: ModelEntry): Promise<void> {
    switch (button) {
      case buttons.pause:
        this.#downloads.get(entry.id)?.cancel.cancel();
        return;
      case buttons.fetch:
        // In the background, with the list open: the progress is in it.
        return this.#fetch(entry, () => undefined).then(
          () => undefined,
          (error: unknown) => {
            if (!isCancellation(error)) throw error;
          },
        );
      case buttons.remove:
        return this.#delete(entry);
    }
  }

  async #delete(entry: ModelEntry): Promise<void> {
    const yes = l10n.t("Delete");
    const bytes = bytesText(entry.onDisk ? entry.bytes : (entry.bytesArrived ?? 0));
    const agreed = await window.showWarningMessage(
      l10n.t("Delete {0}?", entry.name),
      { modal: true, detail: l10n.t("{0} are freed. It can be downloaded again at any time.", bytes) },
      yes,
    );
    if (agreed !== yes) return;
    const { bytesFreed } = await this.#engine.request("nosa/deleteModel", { model: entry.id });
    void window.showInformationMessage(l10n.t("{0} is deleted; {1} freed.", entry.name, bytesText(bytesFreed)));
  }

  async #use(entry: ModelEntry): Promise<void> {
    // A model that is on disk is verified only: a damaged one is mended by the same call.
    await window.withProgress(
      { location: ProgressLocation.Notification, title: l10n.t("Getting {0}", entry.name), cancellable: true },
      (progress, token) => this.#fetchShown(entry, progress, token),
    );
    await changeSetting("model", entry.id);
  }

  async #selectFile(): Promise<void> {
    const [file] =
      (await window.showOpenDialog({
        title: l10n.t("A GGUF file, or config.json of a folder with safetensors"),
        openLabel: l10n.t("Use This Model"),
        filters: { [l10n.t("Models")]: ["gguf", "json"] },
      })) ?? [];
    if (file === undefined) return;
    const isFolderOfSafetensors = file.fsPath.endsWith(".json");
    await changeSetting("model", isFolderOfSafetensors ? file.fsPath.replace(/[\\/][^\\/]*$/, "") : file.fsPath);
  }

  async #fetchShown(
    entry: ModelEntry,
    progress: Progress<{ message?: string; increment?: number }>,
    token: CancellationToken,
  ): Promise<ModelEntry> {
    let shown = 0;
    const stopping = token.onCancellationRequested(() => this.#downloads.get(entry.id)?.cancel.cancel());
    try {
      return await this.#fetch(entry, (report) => {
        const percent = percentOf(report.bytesDone, report.bytesTotal);
        progress.report({ message: downloadText(report), increment: Math.max(0, percent - shown) });
        shown = Math.max(shown, percent);
      });
    } finally {
      stopping.dispose();
    }
  }

  /** Goes on where an earlier download stopped. Rejects with a cancellation when it is paused. */
  async #fetch(entry: ModelEntry, onProgress: (progress: DownloadProgress) => void): Promise<ModelEntry> {
    const scope = new Scope();
    const cancel = scope.add(new CancellationTokenSource());
    const download: Download = { cancel, progress: undefined };
    this.#downloads.set(entry.id, download);
    scope.add(
      this.#engine.onDownloadProgress((report) => {
        if (report.model !== entry.id) return;
        download.progress = report;
        onProgress(report);
      }),
    );
    try {
      return await this.#engine.request("nosa/download", { model: entry.id }, cancel.token);
    } finally {
      if (this.#downloads.get(entry.id) === download) this.#downloads.delete(entry.id);
      scope.dispose();
    }
  }

  #currentId(): string {
    return this.#engine.status?.model?.id ?? "";
  }

  #progress(): ReadonlyMap<string, DownloadProgress | undefined> {
    return new Map([...this.#downloads].map(([id, { progress }]) => [id, progress]));
  }
}

/** New items would move the reader to the top of the list. */
function drawKeepingPlace(pick: QuickPick<ModelItem>, items: readonly ModelItem[]): void {
  const [active] = pick.activeItems;
  pick.keepScrollPosition = true;
  pick.items = items;
  const same = items.find(({ id }) => id !== "" && id === active?.id);
  if (same !== undefined) pick.activeItems = [same];
}

type Choice = { readonly kind: "known"; readonly entry: ModelEntry } | { readonly kind: "file" };

export interface ModelItem extends QuickPickItem {
  readonly id: string;
  readonly choice: Choice | null;
}

const buttons = {
  fetch: { iconPath: new ThemeIcon("cloud-download"), tooltip: l10n.t("Download, or go on with it") },
  pause: { iconPath: new ThemeIcon("debug-pause"), tooltip: l10n.t("Pause; what has arrived is kept") },
  remove: { iconPath: new ThemeIcon("trash"), tooltip: l10n.t("Delete from this machine") },
} as const satisfies Record<string, QuickInputButton>;

/** One line a model: the recommended one, then those that fit; what is on disk is marked, what does not fit says so. */
export function modelItems(
  entries: readonly ModelEntry[],
  current: string,
  downloads: ReadonlyMap<string, DownloadProgress | undefined> = new Map(),
): readonly ModelItem[] {
  const sorted = entries.toSorted((a, b) => Number(b.recommended) - Number(a.recommended));
  const known = sorted.map((entry): ModelItem => {
    const isCurrent = entry.id === current;
    const isRunning = downloads.has(entry.id);
    const icon = isRunning ? "sync~spin" : isCurrent ? "check" : entry.onDisk ? "database" : "cloud-download";
    return {
      id: entry.id,
      label: `$(${icon}) ${entry.name}`,
      description: entry.recommended ? l10n.t("recommended for this machine") : "",
      detail: isRunning ? runningDetail(entry, downloads.get(entry.id)) : modelDetail(entry),
      choice: { kind: "known", entry },
      buttons: buttonsOf(entry, isCurrent, isRunning),
    };
  });
  const separator: ModelItem = { id: "", label: "", kind: QuickPickItemKind.Separator, choice: null };
  const file: ModelItem = {
    id: "file",
    label: `$(folder-opened) ${l10n.t("A file on this machine…")}`,
    detail: l10n.t("GGUF, or a folder with config.json and safetensors; Llama and Qwen2 families"),
    choice: { kind: "file" },
  };
  return [...known, separator, file];
}

function buttonsOf(entry: ModelEntry, isCurrent: boolean, isRunning: boolean): QuickInputButton[] {
  if (isRunning) return [buttons.pause];
  const hasBytes = entry.onDisk || (entry.bytesArrived ?? 0) > 0;
  return [...(entry.onDisk ? [] : [buttons.fetch]), ...(hasBytes && !isCurrent ? [buttons.remove] : [])];
}

function modelDetail(entry: ModelEntry): string {
  const arrived = entry.bytesArrived ?? 0;
  const state = entry.onDisk
    ? l10n.t("on disk")
    : arrived > 0
      ? l10n.t("paused, {0} have arrived", bytesText(arrived))
      : l10n.t("to be downloaded");
  const fits = entry.fitsMachine ? "" : ` · ${l10n.t("too large for this machine")}`;
  return `${bytesText(entry.bytes)} · ${entry.licence} · ${state}${fits}`;
}

function runningDetail(entry: ModelEntry, progress: DownloadProgress | undefined): string {
  if (progress === undefined) return `${bytesText(entry.bytes)} · ${l10n.t("downloading")}`;
  return `${percentOf(progress.bytesDone, progress.bytesTotal)}% · ${downloadText(progress)}`;
}

/** The recommended one, else the first that fits: the engine lists the fitting ones first. */
export function recommendedModel(entries: readonly ModelEntry[]): ModelEntry | undefined {
  return entries.find((entry) => entry.recommended) ?? entries.find((entry) => entry.fitsMachine);
}

export function downloadText(progress: DownloadProgress): string {
  if (progress.stage === "verifying") return l10n.t("checking what has arrived");
  const done = l10n.t("{0} of {1}", bytesText(progress.bytesDone), bytesText(progress.bytesTotal));
  return progress.source === "package" ? l10n.t("{0}, from a package registry", done) : done;
}
