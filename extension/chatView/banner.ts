import type { EngineStatus } from "../../engine/protocol";
import type { ConnectionState } from "../client";
import { failureView, plainFailure } from "../errors";
import { indexingText } from "../statusBar";
import { countText, plural } from "../util/format";
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
  if (status === null) return { text: "The engine is starting…", action: null };
  if (status.activity.kind === "downloading") {
    return { text: `Fetching the model, ${status.activity.percent}%`, action: null };
  }
  if (status.model === null) return failureView(plainFailure("modelMissing"));
  if (status.problem !== "") {
    return { text: status.problem, action: { label: "Show Log", command: "nosa.showLog" } };
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
      text: `${model} has not read ${folder.name} yet.`,
      action: { label: "Index Repository", command: "nosa.indexRepository" },
    };
  }
  const read = `${folder.name}: ${plural(context.files, "file")}, ${countText(context.tokens)} tokens · ${model}`;
  return context.complete
    ? { text: read, action: null }
    : { text: `${read} · not finished`, action: { label: "Go On Reading", command: "nosa.indexRepository" } };
}
