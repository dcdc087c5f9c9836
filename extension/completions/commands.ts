import { commands, extensions, l10n, window, workspace, type Memento } from "vscode";
import { completesLanguage, type CompletionStats } from "../../engine/protocol";
import { changeSetting } from "../settings";
import { otherAssistants } from "./otherAssistants";
import type { Snooze } from "./snooze";
import { statsText } from "./statsText";

/** Ghost text off, or on again, everywhere. */
export async function toggleCompletions(): Promise<void> {
  const section = workspace.getConfiguration("nosa");
  await changeSetting("completions.enabled", !section.get("completions.enabled", true));
}

/** Ghost text off, or on again, in the language of the open file. */
export async function toggleLanguage(): Promise<void> {
  const languageId = window.activeTextEditor?.document.languageId;
  if (languageId === undefined) {
    void window.showInformationMessage(l10n.t("Open a file of the language first."));
    return;
  }
  const languages = workspace.getConfiguration("nosa").get<Record<string, boolean>>("completions.languages", {});
  const on = completesLanguage({ languages }, languageId);
  await changeSetting("completions.languages", { ...languages, [languageId]: !on });
  const text = on
    ? l10n.t("No completions in {0} files.", languageId)
    : l10n.t("Completions in {0} files.", languageId);
  window.setStatusBarMessage(text, 3_000);
}

/** Asks for how long; or ends it, when ghost text is quiet already. */
export async function snoozeCompletions(snooze: Snooze): Promise<void> {
  if (snooze.active) {
    snooze.end();
    window.setStatusBarMessage(l10n.t("Completions are back."), 3_000);
    return;
  }
  const choices = [5, 15, 60].map((minutes) => ({ label: l10n.t("{0} minutes", minutes), minutes }));
  const picked = await window.showQuickPick(choices, { title: l10n.t("No completions for how long?") });
  if (picked === undefined) return;
  snooze.start(picked.minutes);
  window.setStatusBarMessage(l10n.t("No completions for {0} minutes.", picked.minutes), 3_000);
}

/** The last answer of the engine, for who wants to know what it cost. */
export class LastAnswer {
  #text = "";

  keep(stats: CompletionStats | undefined, totalMs: number): void {
    this.#text =
      stats === undefined
        ? l10n.t("Nothing was offered, after {0} ms.", Math.round(totalMs))
        : statsText(stats, totalMs);
  }

  async show(): Promise<void> {
    // With a button the editor shows a message whole, else one line of it.
    const settings = l10n.t("Settings");
    const text = this.#text === "" ? l10n.t("No completion was asked for yet.") : this.#text;
    if ((await window.showInformationMessage(text, settings)) === settings)
      await commands.executeCommand("nosa.openSettings");
  }
}

/** Says once, when the first offer is accepted, that another extension shows ghost text as well. */
export async function hintOfOthers(memory: Memento): Promise<void> {
  if (memory.get(hintKey, false)) return;
  const names = otherAssistants(extensions.all.map(({ id }) => id));
  if (names.length === 0) return;
  await memory.update(hintKey, true);
  const off = l10n.t("Turn Nosa's Off");
  const text = l10n.t("{0} also shows completions here; the two overwrite each other.", names.join(", "));
  if ((await window.showInformationMessage(text, off, l10n.t("Keep Both"))) === off) {
    await changeSetting("completions.enabled", false);
  }
}

const hintKey = "nosa.otherAssistantsHinted";
