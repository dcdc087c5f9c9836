import type { ChatDelta, ChatMessage, ChatParams, Usage } from "../engine/protocol";
import { countText } from "./util/format";

/** What one turn of ours asks of the engine; the same for every surface that chats. */
const answer = { tokensMax: 1024, temperature: 0.2, seed: 0 } as const;

export function chatParams(root: string, messages: readonly ChatMessage[]): ChatParams {
  return { root, messages, ...answer };
}

/** What happens before the first word, for the user. */
export function stageText(stage: Extract<ChatDelta, { kind: "stage" }>["stage"]): string {
  switch (stage) {
    case "loading":
      return "Loading the model";
    case "restoring":
      return "Opening what was read of the repository";
    case "reading":
      return "Reading the question";
  }
}

/** "Attended 212 of 3.8k blocks · 412 tokens at 31/s · first word after 0.8 s". */
export function usageText(usage: Usage): string {
  const { millis, answerTokens, attendedBlocks, totalBlocks } = usage;
  const parts: string[] = [];
  if (totalBlocks > 0) {
    parts.push(`Attended to ${countText(attendedBlocks)} of ${countText(totalBlocks)} blocks`);
  }
  if (answerTokens > 0) {
    const speed = millis.decode > 0 ? ` at ${countText((1000 * answerTokens) / millis.decode)}/s` : "";
    parts.push(`${countText(answerTokens)} tokens${speed}`);
    parts.push(`first word after ${(millis.firstToken / 1000).toFixed(1)} s`);
  }
  return parts.join(" · ");
}
