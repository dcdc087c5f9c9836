import { l10n } from "vscode";
import type { ErrorKind } from "../engine/protocol";

/** What can go wrong as the user sees it: the engine's own kinds, and those that arise on this side. */
export type FailureKind =
  | ErrorKind
  | "connectionLost"
  | "engineUnavailable"
  | "untrusted"
  | "noFolder"
  | "fileMissing"
  | "nothingNamed"
  | "rowGone"
  | "noChanges"
  | "nothingToCommit"
  | "noRepository"
  | "gitFailed"
  | "cannotApply";

/** The message is a sentence for the user; the kind decides what is offered. */
export class Failure extends Error {
  readonly kind: FailureKind;

  constructor(kind: FailureKind, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "Failure";
    this.kind = kind;
  }
}

export interface Action {
  readonly label: string;
  readonly command: string;
}

/** What a person is told and offered. */
export interface FailureView {
  readonly text: string;
  readonly action: Action | null;
}

interface Advice {
  /** Said when the failure brings no sentence of its own. */
  readonly text: string;
  readonly action: Action | null;
}

const downloadModel: Action = { label: l10n.t("Download Model"), command: "nosa.downloadModel" };
const selectModel: Action = { label: l10n.t("Select Model"), command: "nosa.selectModel" };
const indexRepository: Action = { label: l10n.t("Index Repository"), command: "nosa.indexRepository" };
const restartEngine: Action = { label: l10n.t("Restart Engine"), command: "nosa.restartEngine" };
const showLog: Action = { label: l10n.t("Show Log"), command: "nosa.showLog" };
const openFolder: Action = { label: l10n.t("Open Folder"), command: "workbench.action.files.openFolder" };
const manageTrust: Action = { label: l10n.t("Manage Workspace Trust"), command: "workbench.trust.manage" };
const forgetRepository: Action = { label: l10n.t("Forget a Repository"), command: "nosa.forgetRepository" };
const reloadWindow: Action = { label: l10n.t("Reload Window"), command: "workbench.action.reloadWindow" };

const adviceFor: Readonly<Record<FailureKind, Advice>> = {
  versionMismatch: {
    text: l10n.t("Another version of Nosa keeps the engine busy. Reload this window to use the newest one."),
    action: reloadWindow,
  },
  forbidden: { text: l10n.t("The engine refused this window. Restart it."), action: restartEngine },
  badRequest: { text: l10n.t("The engine did not understand a request. The log has the details."), action: showLog },
  modelMissing: { text: l10n.t("There is no model on this machine yet."), action: downloadModel },
  modelBroken: { text: l10n.t("The model file is damaged. Download it again."), action: downloadModel },
  modelUnsupported: { text: l10n.t("Nosa cannot run this model. Choose another."), action: selectModel },
  downloadFailed: { text: l10n.t("The download failed. What has arrived is kept; try again."), action: downloadModel },
  rootMissing: { text: l10n.t("The folder is gone. Open it again."), action: openFolder },
  repositoryEmpty: { text: l10n.t("There is nothing to read in this folder."), action: showLog },
  notIndexed: { text: l10n.t("Nosa has not read this repository yet."), action: indexRepository },
  noSpace: { text: l10n.t("The disk is full. Free some space, or forget a repository."), action: forgetRepository },
  outOfMemory: {
    text: l10n.t("There is not enough memory. Close other programs, or choose a smaller model."),
    action: selectModel,
  },
  draining: { text: l10n.t("The engine is making way for a newer one. Try again in a moment."), action: null },
  internal: { text: l10n.t("The engine failed. The log has the details."), action: showLog },
  connectionLost: {
    text: l10n.t("The engine stopped. It is started again, and nothing that was read is lost."),
    action: showLog,
  },
  engineUnavailable: { text: l10n.t("The engine could not be started."), action: showLog },
  untrusted: { text: l10n.t("Nosa reads a repository only after you trust its workspace."), action: manageTrust },
  noFolder: { text: l10n.t("Open a folder first; Nosa reads it and answers from it."), action: openFolder },
  fileMissing: { text: l10n.t("The file is no longer there."), action: null },
  nothingNamed: { text: l10n.t("Select some code, open a file, or name what is meant."), action: null },
  rowGone: { text: l10n.t("The list has just changed: choose once more."), action: null },
  noChanges: { text: l10n.t("The working tree has no changes to review."), action: null },
  nothingToCommit: { text: l10n.t("There is nothing to commit."), action: null },
  noRepository: { text: l10n.t("No Git repository is open."), action: null },
  gitFailed: { text: l10n.t("Git could not say what changed."), action: showLog },
  cannotApply: { text: l10n.t("There is no place for this code: open the file it belongs to."), action: null },
};

/** The words and the button for a failure. */
export function failureView(failure: Failure): FailureView {
  const advice = adviceFor[failure.kind];
  return { text: failure.message === "" ? advice.text : failure.message, action: advice.action };
}

/** A failure that says what its kind always says. */
export function plainFailure(kind: FailureKind): Failure {
  return new Failure(kind, adviceFor[kind].text);
}

/** True for what the user asked to stop, however the layers below say so. */
export function isCancellation(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return error.name === "Canceled" || cancelledCodes.has(codeOf(error));
}

/** Whatever was thrown → a failure the user can be told about. */
export function failureFrom(error: unknown): Failure {
  if (error instanceof Failure) return error;
  if (!(error instanceof Error)) return plainFailure("internal");
  const kind = kindOf(error);
  if (kind !== undefined) return new Failure(kind, inUsersLanguage(kind, error.message), { cause: error });
  if (connectionCodes.has(codeOf(error))) return plainFailure("connectionLost");
  return new Failure("internal", l10n.t("The engine failed: {0}", error.message));
}

/** The engine speaks English. Whoever reads another language is told what such a failure always means; the log has its words. */
function inUsersLanguage(kind: FailureKind, message: string): string {
  return l10n.bundle === undefined ? message : adviceFor[kind].text;
}

/** For the log: what happened, in the words of whoever noticed it. */
export function logText({ kind, message, cause }: Failure): string {
  const own = cause instanceof Error && cause.message !== message ? ` (${cause.message})` : "";
  return `${kind}: ${message}${own}`;
}

// JSON-RPC numbers: request cancelled, server cancelled, content modified.
const cancelledCodes: ReadonlySet<number> = new Set([-32800, -32802, -32801]);
// Writing, reading, a pending response and an inactive connection; 1 to 3: closed, disposed, listening already.
const connectionCodes: ReadonlySet<number> = new Set([-32099, -32098, -32097, -32096, 1, 2, 3]);

function codeOf(error: Error): number {
  return "code" in error && typeof error.code === "number" ? error.code : Number.NaN;
}

function kindOf(error: Error): FailureKind | undefined {
  const data: unknown = "data" in error ? error.data : undefined;
  if (typeof data !== "object" || data === null || !("kind" in data)) return undefined;
  return isFailureKind(data.kind) ? data.kind : "internal";
}

export function isFailureKind(value: unknown): value is FailureKind {
  return typeof value === "string" && Object.hasOwn(adviceFor, value);
}
