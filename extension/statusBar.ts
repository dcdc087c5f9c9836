import { MarkdownString, StatusBarAlignment, ThemeColor, window, type Disposable, type StatusBarItem } from "vscode";
import type { Activity, ContextStatus, EngineStatus } from "../engine/protocol";
import type { ConnectionState, Engine } from "./client";
import { failureView } from "./errors";
import { bytesText, countText, durationText, plural } from "./util/format";
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
    return { text: "$(error) Nosa: not running", tooltip: [text], label: `Nosa: ${text}`, tone: "error" };
  }
  if (status === null) {
    const text = state.kind === "pausing" ? "restarting" : "starting";
    return { text: `$(loading~spin) Nosa: ${text}`, tooltip: [], label: `Nosa is ${text}`, tone: "plain" };
  }
  const now = activityText(status.activity) ?? restingText(status, input.roots);
  return {
    text: `$(${iconOf(input, status)}) Nosa: ${now}`,
    tooltip: tooltipLines(input, status),
    label: `Nosa: ${status.problem === "" ? now : status.problem}`,
    tone: status.problem === "" ? "plain" : "warning",
  };
}

function iconOf(input: StatusInput, status: EngineStatus): string {
  if (status.activity.kind !== "idle") return "loading~spin";
  if (status.problem !== "") return "warning";
  if (status.model === null) return "cloud-download";
  return input.completionsEnabled ? "book" : "circle-slash";
}

/** Undefined where the resting text says it better: a completion comes and goes with each key. */
function activityText(activity: Activity): string | undefined {
  switch (activity.kind) {
    case "downloading":
      return `fetching the model, ${activity.percent}%`;
    case "loading":
      return "loading the model";
    case "indexing":
      return indexingText(activity);
    case "answering":
      return "answering";
    case "completing":
    case "idle":
      return undefined;
  }
}

/** "reading 43% at 351 tokens/s, 2 min left"; speed and time only once they are known. */
export function indexingText(activity: Extract<Activity, { kind: "indexing" }>): string {
  const { percent, tokensPerSecond, secondsLeft } = activity;
  const speed = tokensPerSecond > 0 ? ` at ${countText(tokensPerSecond)} tokens/s` : "";
  const left = secondsLeft >= 0 ? `, ${durationText(secondsLeft)} left` : "";
  return `reading ${percent}%${speed}${left}`;
}

function restingText(status: EngineStatus, roots: readonly string[]): string {
  if (status.model === null) return "no model yet";
  const tokens = openContexts(status, roots).reduce((sum, context) => sum + context.tokens, 0);
  const device = status.device.split(" ")[0] ?? "";
  const read = tokens > 0 ? `${countText(tokens)} tokens` : "nothing read";
  return [status.model.name, device, read].filter((part) => part !== "").join(" · ");
}

function openContexts(status: EngineStatus, roots: readonly string[]): readonly ContextStatus[] {
  return status.contexts.filter((context) => roots.includes(context.root));
}

function tooltipLines(input: StatusInput, status: EngineStatus): readonly string[] {
  const lines: string[] = [];
  if (status.problem !== "") lines.push(`$(warning) ${status.problem}`);
  lines.push(`**Model** ${status.model === null ? "none yet" : status.model.name}`);
  if (status.device !== "") lines.push(`**Device** ${status.device}`);
  for (const context of openContexts(status, input.roots)) lines.push(contextLine(context));
  if (status.kvBytes > 0) lines.push(`**Memory of what was read** ${bytesText(status.kvBytes)}`);
  lines.push(`**Completions** ${input.completionsEnabled ? "on" : "off"}`);
  lines.push(`**Windows** ${status.clients}, engine ${status.engineVersion}`);
  return lines;
}

function contextLine(context: ContextStatus): string {
  const name = context.root.split(/[\\/]/).at(-1) ?? context.root;
  const unfinished = context.complete ? "" : ", not finished";
  const attended =
    context.totalBlocks > 0
      ? `; the last request attended to ${countText(context.attendedBlocks)} of ${countText(context.totalBlocks)} blocks`
      : "";
  return `**${name}** ${plural(context.files, "file")}, ${countText(context.tokens)} tokens${unfinished}${attended}`;
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
