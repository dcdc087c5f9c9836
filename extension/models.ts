import {
  ConfigurationTarget,
  ProgressLocation,
  QuickPickItemKind,
  commands,
  window,
  workspace,
  type CancellationToken,
  type Progress,
  type QuickPickItem,
} from "vscode";
import type { DownloadProgress, ModelEntry } from "../engine/protocol";
import type { Engine } from "./client";
import { plainFailure } from "./errors";
import { bytesText, percentOf } from "./util/format";

/** The commands that choose a model and fetch it. */
export class Models {
  readonly #engine: Engine;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /** Lists the known models; fetches the chosen one where needed, and makes it the one in use. */
  async select(): Promise<void> {
    const entries = await this.#engine.request("nosa/models", {});
    const current = this.#engine.status?.model?.id ?? "";
    const picked = await window.showQuickPick(modelItems(entries, current), {
      placeHolder: "Which model should answer and complete?",
      matchOnDescription: true,
      matchOnDetail: true,
    });
    if (picked === undefined) return;
    if (picked.choice.kind === "file") return this.#selectFile();
    await this.#use(picked.choice.entry);
  }

  /** Fetches the best model for this machine and makes it the one in use. */
  async downloadRecommended(): Promise<void> {
    const entries = await this.#engine.request("nosa/models", {});
    const best = recommendedModel(entries);
    if (best === undefined) throw plainFailure("modelMissing");
    await this.#use(best);
    const next = await window.showInformationMessage(
      `${best.name} is ready. Let Nosa read the repository next.`,
      "Index Repository",
    );
    if (next !== undefined) await commands.executeCommand("nosa.indexRepository");
  }

  async #use(entry: ModelEntry): Promise<void> {
    // A model that is on disk is verified only: a damaged one is mended by the same call.
    await this.#download(entry);
    await choose(entry.id);
  }

  async #selectFile(): Promise<void> {
    const [file] =
      (await window.showOpenDialog({
        title: "A GGUF file, or config.json of a folder with safetensors",
        openLabel: "Use This Model",
        filters: { Models: ["gguf", "json"] },
      })) ?? [];
    if (file === undefined) return;
    const isFolderOfSafetensors = file.fsPath.endsWith(".json");
    await choose(isFolderOfSafetensors ? file.fsPath.replace(/[\\/][^\\/]*$/, "") : file.fsPath);
  }

  #download(entry: ModelEntry): Thenable<ModelEntry> {
    return window.withProgress(
      { location: ProgressLocation.Notification, title: `Getting ${entry.name}`, cancellable: true },
      (progress, token) => this.#fetch(entry, progress, token),
    );
  }

  async #fetch(
    entry: ModelEntry,
    progress: Progress<{ message?: string; increment?: number }>,
    token: CancellationToken,
  ): Promise<ModelEntry> {
    let shown = 0;
    const listening = this.#engine.onDownloadProgress((report) => {
      if (report.model !== entry.id) return;
      const percent = percentOf(report.bytesDone, report.bytesTotal);
      progress.report({ message: downloadText(report), increment: Math.max(0, percent - shown) });
      shown = Math.max(shown, percent);
    });
    try {
      return await this.#engine.request("nosa/download", { model: entry.id }, token);
    } finally {
      listening.dispose();
    }
  }
}

/** Where the user set it last, else for the user: a model is no property of a repository. */
async function choose(model: string): Promise<void> {
  const section = workspace.getConfiguration("nosa");
  const inWorkspace = section.inspect<string>("model")?.workspaceValue !== undefined;
  await section.update("model", model, inWorkspace ? ConfigurationTarget.Workspace : ConfigurationTarget.Global);
}

type Choice = { readonly kind: "known"; readonly entry: ModelEntry } | { readonly kind: "file" };

export interface ModelItem extends QuickPickItem {
  readonly choice: Choice;
}

/** One line a model: what is on disk first is marked, what does not fit says so. */
export function modelItems(entries: readonly ModelEntry[], current: string): readonly ModelItem[] {
  const known = entries.map((entry): ModelItem => ({
    label: `$(${entry.id === current ? "check" : entry.onDisk ? "database" : "cloud-download"}) ${entry.name}`,
    description: entry.recommended ? "recommended for this machine" : "",
    detail: modelDetail(entry),
    choice: { kind: "known", entry },
  }));
  const separator: ModelItem = { label: "", kind: QuickPickItemKind.Separator, choice: { kind: "file" } };
  const file: ModelItem = {
    label: "$(folder-opened) A file on this machine…",
    detail: "GGUF, or a folder with config.json and safetensors; Llama and Qwen2 families",
    choice: { kind: "file" },
  };
  return [...known, separator, file];
}

function modelDetail(entry: ModelEntry): string {
  const state = entry.onDisk ? "on disk" : "to be downloaded";
  const fits = entry.fitsMachine ? "" : " · too large for this machine";
  return `${bytesText(entry.bytes)} · ${entry.licence} · ${state}${fits}`;
}

/** The recommended one, else the first that fits: the engine lists the fitting ones first. */
export function recommendedModel(entries: readonly ModelEntry[]): ModelEntry | undefined {
  return entries.find((entry) => entry.recommended) ?? entries.find((entry) => entry.fitsMachine);
}

export function downloadText(progress: DownloadProgress): string {
  if (progress.stage === "verifying") return "checking what has arrived";
  const done = `${bytesText(progress.bytesDone)} of ${bytesText(progress.bytesTotal)}`;
  return progress.source === "package" ? `${done}, from a package registry` : done;
}
