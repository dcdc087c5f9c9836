import { CancellationTokenSource, ProgressLocation, l10n, window, workspace } from "vscode";
import type { EngineStatus, Usage } from "../engine/protocol";
import type { Engine } from "./client";
import { failureFrom } from "./errors";
import { bytesText, countText } from "./util/format";

/** One thing that was tried, and how it went. */
export interface Check {
  readonly name: string;
  readonly passed: boolean;
  readonly detail: string;
}

/** Longest time for an answer of a few words, with a model that is loaded first. */
const answerMs = 120_000;

/** Tries each part once, in the order in which they need each other, and shows what it found as a document. */
export async function selfTest(engine: Engine): Promise<void> {
  const checks = await window.withProgress(
    { location: ProgressLocation.Notification, title: l10n.t("Nosa tests itself"), cancellable: false },
    () => runChecks(engine),
  );
  const content = reportText(checks, engine.status);
  const document = await workspace.openTextDocument({ language: "markdown", content });
  await window.showTextDocument(document, { preview: true });
}

async function runChecks(engine: Engine): Promise<readonly Check[]> {
  const checks: Check[] = [];
  const run = async (name: string, attempt: () => Promise<string>): Promise<boolean> => {
    try {
      checks.push({ name, passed: true, detail: await attempt() });
      return true;
    } catch (error) {
      checks.push({ name, passed: false, detail: failureFrom(error).message });
      return false;
    }
  };
  const isConnected = await run(l10n.t("The engine answers"), async () => {
    const startedAtMs = performance.now();
    const status = await engine.request("nosa/status", {});
    const millis = (performance.now() - startedAtMs).toFixed(1);
    return l10n.t("version {0}, {1} ms", status.engineVersion, millis);
  });
  if (!isConnected) return checks;
  await run(l10n.t("A model is there"), async () => {
    const models = await engine.request("nosa/models", {});
    const there = models.filter(({ onDisk }) => onDisk).map(({ name }) => name);
    return [engine.status?.model?.name ?? "", ...there]
      .filter((name, at, all) => all.indexOf(name) === at && name !== "")
      .join(", ");
  });
  await run(l10n.t("The model answers"), async () => answerText(await shortAnswer(engine)));
  await run(l10n.t("What was read is there"), async () => {
    const { contexts, memory } = await engine.request("nosa/status", {});
    const tokens = contexts.reduce((sum, context) => sum + context.tokens, 0);
    const kept = l10n.t("{0} in memory, {1} on disk", bytesText(memory.bytes), bytesText(memory.diskBytes));
    return `${l10n.t("{0} tokens", countText(tokens))}, ${kept}`;
  });
  return checks;
}

async function shortAnswer(engine: Engine): Promise<Usage> {
  const cancel = new CancellationTokenSource();
  const timer = setTimeout(() => cancel.cancel(), answerMs);
  try {
    const messages = [{ role: "user", content: "Count from one to twenty in words." }] as const;
    const params = { root: "", messages, tokensMax: 32, temperature: 0, seed: 0 };
    return (await engine.chat(params, () => undefined, cancel.token)).usage;
  } finally {
    clearTimeout(timer);
    cancel.dispose();
  }
}

function answerText({ answerTokens, millis }: Usage): string {
  const speed = millis.decode > 0 ? (1000 * answerTokens) / millis.decode : 0;
  return l10n.t("first word after {0} s, then {1} tokens/s", (millis.firstToken / 1000).toFixed(1), countText(speed));
}

/** Markdown of what was found; nothing in it tells of the user's files. Pure. */
export function reportText(checks: readonly Check[], status: EngineStatus | null): string {
  const failed = checks.filter(({ passed }) => !passed).length;
  const verdict =
    failed === 0 ? l10n.t("Everything works.") : l10n.t("{0} of {1} checks failed.", failed, checks.length);
  const device = status === null || status.device === "" ? [] : [`- ${l10n.t("Device")}: ${status.device}`];
  const model =
    status?.model === undefined || status.model === null ? [] : [`- ${l10n.t("Model")}: ${status.model.name}`];
  const rows = checks.map(
    ({ name, passed, detail }) => `| ${passed ? "✓" : "✗"} | ${name} | ${detail.replaceAll("|", "\\|")} |`,
  );
  const table = [`| | ${l10n.t("Check")} | ${l10n.t("Result")} |`, "| --- | --- | --- |", ...rows];
  return [`# ${l10n.t("Nosa: Self-Test")}`, "", verdict, "", ...device, ...model, "", ...table, ""].join("\n");
}
