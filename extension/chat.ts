import { l10n } from "vscode";
import type { ChatDelta, ChatMessage, ChatParams, Place, Usage } from "../engine/protocol";
import { countText } from "./util/format";

/** What one turn of ours asks of the engine; the same for every surface that chats. */
const answer = { tokensMax: 1024, temperature: 0.2, seed: 0 } as const;

export function chatParams(root: string, messages: readonly ChatMessage[], pins: readonly Place[] = []): ChatParams {
  return { root, messages, ...(pins.length > 0 ? { pins } : {}), ...answer };
}

/** What happens before the first word, for the user. */
export function stageText(stage: Extract<ChatDelta, { kind: "stage" }>["stage"]): string {
  switch (stage) {
    case "loading":
      return l10n.t("Loading the model");
    case "restoring":
      return l10n.t("Opening what was read of the repository");
    case "reading":
      return l10n.t("Reading the question");
  }
}

/** "Attended 212 of 3.8k blocks · 412 tokens at 31/s · first word after 0.8 s". */
export function usageText(usage: Usage): string {
  const { millis, answerTokens, attendedBlocks, totalBlocks } = usage;
  const parts: string[] = [];
  if (totalBlocks > 0) {
    parts.push(l10n.t("Attended to {0} of {1} blocks", countText(attendedBlocks), countText(totalBlocks)));
  }
  if (answerTokens > 0) {
    const speed = countText(millis.decode > 0 ? (1000 * answerTokens) / millis.decode : 0);
    parts.push(l10n.t("{0} tokens at {1}/s", countText(answerTokens), speed));
    parts.push(l10n.t("first word after {0} s", (millis.firstToken / 1000).toFixed(1)));
  }
  return parts.join(" · ");
}
