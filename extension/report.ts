import { commands, window, type LogOutputChannel } from "vscode";
import { failureFrom, failureView, isCancellation, logText } from "./errors";

/**
 * Tells the user about what an action of theirs ran into, with the button that helps. Cancelling is no failure.
 * Only ever called for something the user asked for.
 */
export async function report(error: unknown, log: LogOutputChannel): Promise<void> {
  if (isCancellation(error)) return;
  const failure = failureFrom(error);
  log.error(logText(failure));
  const { text, action } = failureView(failure);
  const labels = action === null ? [] : [action.label];
  const chosen = await window.showErrorMessage(text, ...labels);
  if (chosen !== undefined && action !== null) await commands.executeCommand(action.command);
}
