import { l10n, window } from "vscode";
import type { Engine } from "./client";
import { chooseFolders, rootOf } from "./roots";
import { bytesText } from "./util/format";

/** Deletes what was kept of a repository, after the user agreed: reading it again takes time. */
export async function forgetChosen(engine: Engine): Promise<void> {
  const [folder] = await chooseFolders({ placeHolder: l10n.t("Which folder should Nosa forget?"), all: false });
  if (folder === undefined) return;
  const agreed = await window.showWarningMessage(
    l10n.t("Forget {0}?", folder.name),
    {
      modal: true,
      detail: l10n.t("Everything kept of it is deleted. Your files stay. It can be read again at any time."),
    },
    l10n.t("Forget"),
  );
  if (agreed === undefined) return;
  const { bytesFreed } = await engine.request("nosa/forget", { root: rootOf(folder) });
  void window.showInformationMessage(l10n.t("Nosa has forgotten {0}; {1} freed.", folder.name, bytesText(bytesFreed)));
}
