import {
  MarkdownString,
  StatusBarAlignment,
  ThemeColor,
  l10n,
  window,
  type Disposable,
  type StatusBarItem,
} from "vscode";
import type { Activity, ContextStatus, EngineStatus } from "../engine/protocol";
import type { ConnectionState, Engine } from "./client";
import { failureView, plainFailure } from "./errors";
import { gauges } from "./meter";
import { countText, durationText, filesText } from "./util/format";
import { Scope } from "./util/disposables";

export interface StatusInput {
  readonly state: ConnectionState;
  readonly status: EngineStatus | null;
  /** Roots that are open in this window. */
  readonly roots: readonly string[];
  readonly completionsEnabled: boolean;
}

export interface StatusView {
  readonly text: string;
  /** Lines of markdown. */
  readonly tooltip: readonly string[];
  /** Read out by a screen reader. */
  readonly label: string;
  readonly tone: "plain" | "warning" | "error";
}

/** The engine's state in words: what the status bar shows. Pure. */
export function statusView(input: StatusInput): StatusView {
  const { state, status } = input;
  if (state.kind === "failed") {
    const { text } = failureView(state.failure);
    return { text: `$(error) ${l10n.t("Nosa: not running")}`, tooltip: [text], label: `Nosa: ${text}`, tone: "error" };
  }
  if (status === null) {
    const text = state.kind === "pausing" ? l10n.t("Nosa: restarting") : l10n.t("Nosa: starting");
    return { text: `$(loading~spin) ${text}`, tooltip: [], label: text, tone: "plain" };
  }
  const now = activityText(status.activity) ?? restingText(status, input.roots);
  return {
    text: `$(${iconOf(input, status)}) Nosa: ${now}`,
    tooltip: tooltipLines(input, status),
    label: `Nosa: ${status.problem === "" ? now : problemText(status)}`,
    tone: status.problem === "" ? "plain" : "warning",
  };
}

/** The engine's own sentence names the model and its size, in English. */
function problemText({ model, problem }: EngineStatus): string {
  return model === null && l10n.bundle !== undefined ? plainFailure("modelMissing").message : problem;
}

/** Turns for what is waited for and has words; while somebody types each frame of it would be painted by the cores that write the completion. */
function iconOf(input: StatusInput, status: EngineStatus): string {
  if (activityText(status.activity) !== undefined) return "loading~spin";
  if (status.problem !== "") return "warning";
  if (status.model === null) return "cloud-download";
  return input.completionsEnabled ? "book" : "circle-slash";
}

/** Undefined where the resting text says it better: a completion comes and goes with each key. */
function activityText(activity: Activity): string | undefined {
  switch (activity.kind) {
    case "downloading":
      return l10n.t("fetching the model, {0}%", activity.percent);
    case "loading":
      return l10n.t("loading the model");
    case "indexing":
      return indexingText(activity);
    case "answering":
      return l10n.t("answering");
    case "completing":
    case "idle":
      return undefined;
  }
}

/** "reading 43% · 351 tokens/s · 2 min left"; speed and time only once they are known. */
export function indexingText(activity: Extract<Activity, { kind: "indexing" }>): string {
  const { percent, tokensPerSecond, secondsLeft } = activity;
  const parts = [l10n.t("reading {0}%", percent)];
  if (tokensPerSecond > 0) parts.push(l10n.t("{0} tokens/s", countText(tokensPerSecond)));
  if (secondsLeft >= 0) parts.push(l10n.t("{0} left", durationText(secondsLeft)));
  return parts.join(" · ");
}

function restingText(status: EngineStatus, roots: readonly string[]): string {
  if (status.model === null) return l10n.t("no model yet");
  const tokens = openContexts(status, roots).reduce((sum, context) => sum + context.tokens, 0);
  const device = status.device.split(" ")[0] ?? "";
  const read = tokens > 0 ? l10n.t("{0} tokens", countText(tokens)) : l10n.t("nothing read");
  return [status.model.name, device, read].filter((part) => part !== "").join(" · ");
}

function openContexts(status: EngineStatus, roots: readonly string[]): readonly ContextStatus[] {
  return status.contexts.filter((context) => roots.includes(context.root));
}

function tooltipLines(input: StatusInput, status: EngineStatus): readonly string[] {
  const lines: string[] = [];
  if (status.problem !== "") lines.push(`$(warning) ${problemText(status)}`);
  lines.push(l10n.t("**Model** {0}", status.model === null ? l10n.t("none yet") : status.model.name));
  if (status.device !== "") lines.push(l10n.t("**Device** {0}", status.device));
  if (status.deviceNote !== undefined && status.deviceNote !== "") lines.push(status.deviceNote);
  for (const context of openContexts(status, input.roots)) lines.push(contextLine(context));
  for (const { label, text } of gauges(status, input.roots, 0).filter(({ id }) => id !== "tokens")) {
    lines.push(`**${label}** ${text}`);
  }
  lines.push(input.completionsEnabled ? l10n.t("**Completions** on") : l10n.t("**Completions** off"));
  lines.push(l10n.t("**Windows** {0}, engine {1}", status.clients, status.engineVersion));
  return lines;
}

function contextLine(context: ContextStatus): string {
  const name = context.root.split(/[\\/]/).at(-1) ?? context.root;
  const parts = [`**${name}** ${filesText(context.files)}`, l10n.t("{0} tokens", countText(context.tokens))];
  if (!context.complete) parts.push(l10n.t("not finished"));
  if (context.totalBlocks > 0) {
    const [attended, total] = [countText(context.attendedBlocks), countText(context.totalBlocks)];
    parts.push(l10n.t("the last request attended to {0} of {1} blocks", attended, total));
    if (context.blocksRead > 0) parts.push(l10n.t("{0} of them fetched from disk", countText(context.blocksRead)));
  }
  return parts.join(" · ");
}

export interface StatusBarOptions {
  readonly engine: Engine;
  readonly roots: () => readonly string[];
  readonly completionsEnabled: () => boolean;
}

/** Keeps the item in step with the engine. A click opens the menu. */
export class StatusBar implements Disposable {
  readonly #scope = new Scope();
  readonly #item: StatusBarItem;
  readonly #options: StatusBarOptions;
  /** As JSON: the status comes with each completion, and the editor draws what it is told, be it the same. */
  #shown = "";

  constructor(options: StatusBarOptions) {
    this.#options = options;
    this.#item = this.#scope.add(window.createStatusBarItem("nosa.status", StatusBarAlignment.Right, 100));
    this.#item.name = "Nosa";
    this.#item.command = "nosa.showStatus";
    this.#scope.add(options.engine.onDidChange(() => this.refresh()));
    this.refresh();
    this.#item.show();
  }

  refresh(): void {
    const { engine, roots, completionsEnabled } = this.#options;
    const view = statusView({
      state: engine.state,
      status: engine.status,
      roots: roots(),
      completionsEnabled: completionsEnabled(),
    });
    const shown = JSON.stringify(view);
    if (shown === this.#shown) return;
    this.#shown = shown;
    this.#item.text = view.text;
    this.#item.tooltip = tooltipMarkdown(view.tooltip);
    this.#item.accessibilityInformation = { label: view.label, role: "button" };
    this.#item.backgroundColor =
      view.tone === "plain" ? undefined : new ThemeColor(`statusBarItem.${view.tone}Background`);
  }

  dispose(): void {
    this.#scope.dispose();
  }
}

function tooltipMarkdown(lines: readonly string[]): MarkdownString {
  return new MarkdownString(["**Nosa**", ...lines].join("\n\n"), true);
}
