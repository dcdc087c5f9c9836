import {
  CancellationError,
  ProgressLocation,
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
import { chooseFolders, rootOf } from "./roots";
import { countText, durationText, percentOf, plural } from "./util/format";

/** The command that has repositories read, with progress. Reading goes on in the engine; what is read is kept. */
export class Indexing {
  readonly #engine: Engine;
  readonly #log: LogOutputChannel;
  readonly #running = new Set<string>();

  constructor(engine: Engine, log: LogOutputChannel) {
    this.#engine = engine;
    this.#log = log;
  }

  /** Asks for a folder where there are several, and reads one after the other. */
  async indexChosen(): Promise<void> {
    if (!workspace.isTrusted) throw plainFailure("untrusted");
    const chosen = await chooseFolders({ placeHolder: "Which folder should Nosa read?", all: true });
    for (const folder of chosen) {
      if (!(await this.#index(folder))) return;
    }
  }

  /** False when the user stopped it. */
  async #index(folder: WorkspaceFolder): Promise<boolean> {
    const root = rootOf(folder);
    if (this.#running.has(root)) {
      void window.showInformationMessage(`Nosa is reading ${folder.name} already.`);
      return true;
    }
    this.#running.add(root);
    try {
      const summary = await window.withProgress(
        { location: ProgressLocation.Notification, title: `Reading ${folder.name}`, cancellable: true },
        (progress, token) => this.#read(folder, progress, token),
      );
      this.#log.info(summaryText(folder.name, summary));
      void window.showInformationMessage(summaryText(folder.name, summary));
      return true;
    } catch (error) {
      if (!isCancellation(error)) throw error;
      this.#log.info(`Reading ${folder.name} was stopped.`);
      void window.showInformationMessage(`Stopped. What was read of ${folder.name} is kept, and is where it goes on.`);
      return false;
    } finally {
      this.#running.delete(root);
    }
  }

  async #read(
    folder: WorkspaceFolder,
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
      const params = { root, editorExcludes: editorExcludes(folder) };
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
      return `looking for files, ${plural(progress.filesTotal, "file")} so far`;
    case "loading":
      return "loading the model";
    case "saving":
      return "saving";
    case "reading":
      return readingText(progress);
  }
}

function readingText(progress: IndexProgress): string {
  const { tokensDone, tokensTotal, tokensPerSecond, secondsLeft } = progress;
  const parts = [
    `${percentOf(tokensDone, tokensTotal)}%`,
    `${countText(tokensDone)} of ${countText(tokensTotal)} tokens`,
  ];
  if (tokensPerSecond > 0) parts.push(`${countText(tokensPerSecond)} tokens/s`);
  if (secondsLeft >= 0) parts.push(`${durationText(secondsLeft)} left`);
  return parts.join(" · ");
}

export function summaryText(name: string, summary: IndexSummary): string {
  const whole = `${plural(summary.files, "file")}, ${countText(summary.tokens)} tokens`;
  const leftOut = summary.leftOut > 0 ? ` ${plural(summary.leftOut, "file")} left out.` : "";
  if (summary.tokensRead === 0) return `Nosa knows ${name} already: ${whole}.${leftOut}`;
  const took = `${countText(summary.tokensRead)} tokens read in ${durationText(summary.seconds)}`;
  const verb = summary.complete ? "has read" : "has read a part of";
  return `Nosa ${verb} ${name}: ${whole} (${took}).${leftOut}`;
}
