import { l10n } from "vscode";
import type { CompletionStats } from "../../engine/protocol";

/** What the last completion cost, in one line for who asks. */
export function statsText(stats: CompletionStats, totalMs: number): string {
  const total = Math.round(totalMs);
  if (stats.cached) return l10n.t("It was ready before it was asked for, and shown after {0} ms.", total);
  const { queue, prefill, decode } = stats.millis;
  const seen = l10n.t(
    "Tokens written: {0}; around the cursor: {1}, {2} of them new; of the repository to attend to: {3}",
    stats.tokens,
    stats.promptTokens,
    stats.promptTokensRead,
    stats.contextTokens,
  );
  const looked = l10n.t("{0} tokens attended to, {1} blocks fetched from disk", stats.attendedTokens, stats.blocksRead);
  const times = l10n.t("{0} ms: {1} waiting, {2} reading, {3} writing", total, queue, prefill, decode);
  // One line of it is seen first.
  return `${times}. ${looked}. ${seen}.`;
}
