import type { CancellationToken } from "vscode";

/** Resolves after the time, or as soon as the token is cancelled. */
export function pause(ms: number, token: CancellationToken): Promise<void> {
  return new Promise((resolve) => {
    if (token.isCancellationRequested) return resolve();
    const done = (): void => {
      clearTimeout(timer);
      cancelled.dispose();
      resolve();
    };
    const timer = setTimeout(done, ms);
    const cancelled = token.onCancellationRequested(done);
  });
}
