import type { FailureKind } from "./errors";

/** A connection that lasted this long was sound: its loss starts a new count. */
export const steadyMs = 60_000;

/** After this many failures in a row nothing is tried until the user asks. */
export const maxFailures = 6;

const firstPauseMs = 250;
const longestPauseMs = 8_000;

/** The pause after the n-th failure in a row, from 1; doubled each time, so that a crashing engine is no busy loop. */
export function pauseMs(failures: number): number {
  return Math.min(longestPauseMs, firstPauseMs * 2 ** (Math.max(1, failures) - 1));
}

/** Trying again cannot help. */
export function isFinal(kind: FailureKind): boolean {
  return kind === "versionMismatch" || kind === "forbidden";
}
