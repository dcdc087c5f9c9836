import {
  CancellationError,
  CancellationTokenSource,
  ProgressLocation,
  commands,
  l10n,
  window,
  workspace,
  type CancellationToken,
  type LogOutputChannel,
  type Progress,
  type WorkspaceFolder,
} from "vscode";
import type { IndexProgress, IndexSummary } from "../engine/protocol";
import type { Engine } from "./client";
import { isCancellation, plainFailure } from "./errors";
import { chooseFolders, folders, rootOf } from "./roots";
import { countText, durationText, filesText, percentOf } from "./util/format";

/** True while this window has a repository read; for the commands that pause and resume. */
const readingKey = "nosa.reading";
/** True while a repository of this window was paused. */
const pausedKey = "nosa.paused";

/** The commands that have repositories read, with progress. Reading goes on in the engine; what is read is kept. */
export class Indexing {
  readonly #engine: Engine;
  readonly #log: LogOutputChannel;
  readonly #running = new Map<string, CancellationTokenSource>();
  /** Roots that go on with "resume". */
  readonly #paused = new Set<string>();

  constructor(engine: Engine, log: LogOutputChannel) {
    this.#engine = engine;
    this.#log = log;
  }

  /** Asks for a folder where there are several, and reads one after the other. */
  async indexChosen(): Promise<void> {
    await this.#indexEach([], l10n.t("Which folder should Nosa read?"));
  }

  /** The same, with everything read anew. */
  async rereadChosen(): Promise<void> {
    await this.#indexEach(["/"], l10n.t("Which folder should Nosa read anew?"));
  }

  /** Stops reading until it is resumed. What was read is kept. */
  pause(): void {
    for (const [root, running] of this.#running) {
      this.#paused.add(root);
      running.cancel();
    }
  }

  async resume(): Promise<void> {
    const waiting = folders().filter((folder) => this.#paused.has(rootOf(folder)));
    if (waiting.length === 0) return this.indexChosen();
    for (const folder of waiting) await this.#index(folder, []);
  }

  /** Reads what changed, with progress in the status bar alone: part of something else that was asked for. */
  async indexQuietly(folder: WorkspaceFolder, reread: readonly string[]): Promise<void> {
    const location = { location: ProgressLocation.Window, title: l10n.t("Reading {0}", folder.name) };
    const summary = await window.withProgress(location, (progress, token) =>
      this.#read(folder, reread, progress, token),
    );
    this.#log.info(summaryText(folder.name, summary));
  }

  async #indexEach(reread: readonly string[], placeHolder: string): Promise<void> {
    if (!workspace.isTrusted) throw plainFailure("untrusted");
    for (const folder of await chooseFolders({ placeHolder, all: true })) {
      if (!(await this.#index(folder, reread))) return;
    }
  }

  /** False when the user stopped it. */
  async #index(folder: WorkspaceFolder, reread: readonly string[]): Promise<boolean> {
    const root = rootOf(folder);
    if (this.#running.has(root)) {
      void window.showInformationMessage(l10n.t("Nosa is reading {0} already.", folder.name));
      return true;
    }
    const running = new CancellationTokenSource();
    this.#running.set(root, running);
    this.#paused.delete(root);
    this.#tellEditor();
    try {
      const summary = await window.withProgress(
        { location: ProgressLocation.Notification, title: l10n.t("Reading {0}", folder.name), cancellable: true },
        (progress, token) => {
          token.onCancellationRequested(() => running.cancel());
          return this.#read(folder, reread, progress, running.token);
        },
      );
      this.#log.info(summaryText(folder.name, summary));
      this.#offerToAsk(summaryText(folder.name, summary));
      return true;
    } catch (error) {
      if (!isCancellation(error)) throw error;
      this.#log.info(`Reading ${folder.name} was stopped.`);
      const text = this.#paused.has(root)
        ? l10n.t("Paused. What was read of {0} is kept, and is where it goes on.", folder.name)
        : l10n.t("Stopped. What was read of {0} is kept, and is where it goes on.", folder.name);
      this.#offerToGoOn(text);
      this.#paused.add(root);
      return false;
    } finally {
      this.#running.delete(root);
      running.dispose();
      this.#tellEditor();
    }
  }

  #offerToAsk(text: string): void {
    const ask = l10n.t("Ask Nosa");
    void window.showInformationMessage(text, ask).then((chosen) => {
      if (chosen === ask) void commands.executeCommand("nosa.ask");
    });
  }

  #offerToGoOn(text: string): void {
    const goOn = l10n.t("Go On Reading");
    void window.showInformationMessage(text, goOn).then((chosen) => {
      if (chosen === goOn) void commands.executeCommand("nosa.resumeIndexing");
    });
  }

  #tellEditor(): void {
    void commands.executeCommand("setContext", readingKey, this.#running.size > 0);
    void commands.executeCommand("setContext", pausedKey, this.#paused.size > 0);
  }

  async #read(
    folder: WorkspaceFolder,
    reread: readonly string[],
    progress: Progress<{ message?: string; increment?: number }>,
    token: CancellationToken,
  ): Promise<IndexSummary> {
    const root = rootOf(folder);
    let shown = 0;
    const listening = this.#engine.onIndexProgress((report) => {
      if (report.root !== root) return;
      const percent = percentOf(report.tokensDone, report.tokensTotal);
      progress.report({ message: progressText(report), increment: Math.max(0, percent - shown) });
      shown = Math.max(shown, percent);
    });
    try {
      const params = {
        root,
        editorExcludes: editorExcludes(folder),
        ...(reread.length > 0 ? { reread } : {}),
      };
      const summary = await this.#engine.request("nosa/index", params, token);
      // The engine says how far it came when it is stopped; here that is a cancellation like any other.
      if (token.isCancellationRequested && !summary.complete) throw new CancellationError();
      return summary;
    } finally {
      listening.dispose();
    }
  }
}

/** `files.exclude` and `search.exclude` of a folder, joined. Conditional entries ("when") hide derived files; they count. */
function editorExcludes(folder: WorkspaceFolder): Record<string, boolean> {
  const joined: Record<string, boolean> = {};
  for (const section of ["files", "search"]) {
    const globs = workspace.getConfiguration(section, folder.uri).get<Record<string, unknown>>("exclude", {});
    for (const [glob, on] of Object.entries(globs)) joined[glob] = on !== false;
  }
  return joined;
}

/** "43% · 1.2k of 2.8k tokens · 350 tokens/s · 2 min left". */
export function progressText(progress: IndexProgress): string {
  switch (progress.stage) {
    case "scanning":
      return l10n.t("looking for files, {0} so far", filesText(progress.filesTotal));
    case "loading":
      return l10n.t("loading the model");
    case "saving":
      return l10n.t("saving");
    case "reading":
      return readingText(progress);
  }
}

function readingText(progress: IndexProgress): string {
  const { tokensDone, tokensTotal, tokensPerSecond, secondsLeft } = progress;
  const parts = [
    `${percentOf(tokensDone, tokensTotal)}%`,
    l10n.t("{0} of {1} tokens", countText(tokensDone), countText(tokensTotal)),
  ];
  if (tokensPerSecond > 0) parts.push(l10n.t("{0} tokens/s", countText(tokensPerSecond)));
  if (secondsLeft >= 0) parts.push(l10n.t("{0} left", durationText(secondsLeft)));
  return parts.join(" · ");
}

export function summaryText(name: string, summary: IndexSummary): string {
  const whole = `${filesText(summary.files)}, ${l10n.t("{0} tokens", countText(summary.tokens))}`;
  const leftOut = summary.leftOut > 0 ? ` ${l10n.t("{0} left out.", filesText(summary.leftOut))}` : "";
  if (summary.tokensRead === 0) return `${l10n.t("Nosa knows {0} already: {1}.", name, whole)}${leftOut}`;
  const took = l10n.t("{0} tokens read in {1}", countText(summary.tokensRead), durationText(summary.seconds));
  const said = summary.complete
    ? l10n.t("Nosa has read {0}: {1} ({2}).", name, whole, took)
    : l10n.t("Nosa has read a part of {0}: {1} ({2}).", name, whole, took);
  return said + leftOut;
}
