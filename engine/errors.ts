/**
 * The one error type of the engine, and the way from native codes to it.
 *
 * An EngineError's message is one sentence for the user that says what to do; its kind decides what the editor offers.
 * Anything else that is thrown is a bug and reaches the user as kind `internal`.
 */

import type { ErrorKind } from "./protocol";

export class EngineError extends Error {
  readonly kind: ErrorKind;

  constructor(kind: ErrorKind, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "EngineError";
    this.kind = kind;
  }
}

/** Thrown where work stops because nobody wants it any more. Features turn it into a result; it never reaches a user. */
export class Cancelled extends Error {
  constructor() {
    super("Cancelled");
    this.name = "Cancelled";
  }
}

/** Throws Cancelled when `signal` was aborted. */
export function throwIfAborted(signal: AbortSignal): void {
  if (signal.aborted) throw new Cancelled();
}

const kindOfNativeCode: Readonly<Record<string, ErrorKind>> = {
  notFound: "modelMissing",
  corrupt: "modelBroken",
  unsupported: "modelUnsupported",
  outOfMemory: "outOfMemory",
  noSpace: "noSpace",
  disposed: "draining",
};

const kindOfSystemCode: Readonly<Record<string, ErrorKind>> = {
  ENOSPC: "noSpace",
  EDQUOT: "noSpace",
  ENOMEM: "outOfMemory",
};

const sentenceOfSystemCode: Readonly<Record<string, string>> = {
  ENOSPC: "The disk is full: free some space and try again; what was read so far is kept.",
  EDQUOT: "The disk quota is used up: free some space and try again; what was read so far is kept.",
  ENOMEM: "The machine is out of memory: close something or choose a smaller model.",
};

/** Whatever was thrown, as an EngineError. Native and file system codes keep their meaning. */
export function toEngineError(error: unknown): EngineError {
  if (error instanceof EngineError) return error;
  const code = codeOf(error);
  const message = error instanceof Error ? error.message : String(error);
  const systemKind = kindOfSystemCode[code];
  if (systemKind !== undefined) {
    return new EngineError(systemKind, sentenceOfSystemCode[code] ?? message, { cause: error });
  }
  const nativeKind = kindOfNativeCode[code];
  if (nativeKind !== undefined) return new EngineError(nativeKind, message, { cause: error });
  return new EngineError("internal", `Something went wrong inside the engine: ${message}`, { cause: error });
}

/** The `code` of a native or system error, or "". */
export function codeOf(error: unknown): string {
  if (typeof error !== "object" || error === null || !("code" in error)) return "";
  return typeof error.code === "string" ? error.code : "";
}
