import { l10n } from "vscode";
import type { EngineStatus } from "../../engine/protocol";
import type { ConnectionState } from "../client";
import { failureView, plainFailure } from "../errors";
import { indexingText } from "../statusBar";
import { countText, filesText } from "../util/format";
import type { ViewBanner } from "./messages";

export interface BannerInput {
  readonly state: ConnectionState;
  readonly status: EngineStatus | null;
  /** The folder questions are about; null when none is open. */
  readonly folder: { readonly name: string; readonly root: string } | null;
  readonly isTrusted: boolean;
}

/** The line above the conversation: what is ready, or the one thing to do next. Pure. */
export function bannerView(input: BannerInput): ViewBanner {
  const { state, status, folder } = input;
  if (state.kind === "failed") return failureView(state.failure);
  if (status === null) return { text: l10n.t("The engine is starting…"), action: null };
  if (status.activity.kind === "downloading") {
    return { text: l10n.t("Fetching the model, {0}%", status.activity.percent), action: null };
  }
  if (status.model === null) return failureView(plainFailure("modelMissing"));
  if (status.problem !== "") {
    return { text: status.problem, action: { label: l10n.t("Show Log"), command: "nosa.showLog" } };
  }
  if (folder === null) return failureView(plainFailure("noFolder"));
  if (!input.isTrusted) return failureView(plainFailure("untrusted"));
  return folderBanner(status, folder);
}

function folderBanner(status: EngineStatus, folder: { name: string; root: string }): ViewBanner {
  const model = status.model?.name ?? "";
  if (status.activity.kind === "indexing") {
    const text = indexingText(status.activity);
    return { text: text.charAt(0).toUpperCase() + text.slice(1), action: null };
  }
  const context = status.contexts.find((candidate) => candidate.root === folder.root);
  if (context === undefined || context.tokens === 0) {
    return {
      text: l10n.t("{0} has not read {1} yet.", model, folder.name),
      action: { label: l10n.t("Index Repository"), command: "nosa.indexRepository" },
    };
  }
  const tokens = l10n.t("{0} tokens", countText(context.tokens));
  const read = `${folder.name}: ${filesText(context.files)}, ${tokens} · ${model}`;
  return context.complete
    ? { text: read, action: null }
    : {
        text: `${read} · ${l10n.t("not finished")}`,
        action: { label: l10n.t("Go On Reading"), command: "nosa.indexRepository" },
      };
}
