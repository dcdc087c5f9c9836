import { l10n, window, workspace, type QuickPickItem } from "vscode";
import type { Engine } from "./client";
import { changeSetting } from "./settings";
import { bytesText, countText } from "./util/format";

type BudgetName = "memoryGigabytes" | "diskGigabytes" | "contextTokensMax";

interface BudgetItem extends QuickPickItem {
  readonly name: BudgetName;
}

/** Asks which budget, then how much. The engine takes it at once. */
export async function setBudgets(engine: Engine): Promise<void> {
  const section = workspace.getConfiguration("nosa");
  const picked = await window.showQuickPick(
    budgetItems(engine, (name) => section.get<number>(name, 0)),
    {
      placeHolder: l10n.t("Which budget?"),
    },
  );
  if (picked === undefined) return;
  const typed = await window.showInputBox({
    title: picked.label.replace(/^\$\([\w-]+\) /, ""),
    prompt:
      picked.name === "contextTokensMax"
        ? l10n.t("Tokens, such as 200000")
        : l10n.t("Gigabytes, such as 4; 0 lets Nosa choose"),
    value: String(section.get<number>(picked.name, 0)),
    validateInput: (text) => budgetProblem(picked.name, text),
  });
  if (typed === undefined) return;
  await changeSetting(picked.name, Number(typed));
}

/** Undefined when the text is a budget; else what is wrong with it. Pure. */
export function budgetProblem(name: BudgetName, text: string): string | undefined {
  const value = Number(text.trim());
  if (text.trim() === "" || !Number.isFinite(value) || value < 0) return l10n.t("A number, please.");
  if (name !== "contextTokensMax") return undefined;
  return Number.isInteger(value) && value >= 1024 ? undefined : l10n.t("At least 1024 tokens.");
}

function budgetItems(engine: Engine, valueOf: (name: BudgetName) => number): readonly BudgetItem[] {
  const memory = engine.status?.memory;
  const inUse = (bytes: number, bytesMax: number): string =>
    bytesMax > 0 ? l10n.t("{0} of {1} in use", bytesText(bytes), bytesText(bytesMax)) : "";
  const gigabytes = (value: number): string => (value === 0 ? l10n.t("chosen by Nosa") : `${value} GB`);
  return [
    {
      name: "memoryGigabytes",
      label: `$(dashboard) ${l10n.t("Memory")}`,
      description: gigabytes(valueOf("memoryGigabytes")),
      detail: [inUse(memory?.bytes ?? 0, memory?.bytesMax ?? 0), memory?.note ?? ""].filter(Boolean).join(" · "),
    },
    {
      name: "diskGigabytes",
      label: `$(database) ${l10n.t("Disk")}`,
      description: gigabytes(valueOf("diskGigabytes")),
      detail: inUse(memory?.diskBytes ?? 0, memory?.diskBytesMax ?? 0),
    },
    {
      name: "contextTokensMax",
      label: `$(book) ${l10n.t("Tokens of a repository")}`,
      description: countText(valueOf("contextTokensMax")),
    },
  ];
}
