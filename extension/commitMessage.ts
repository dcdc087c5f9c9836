import { CancellationTokenSource, ProgressLocation, Uri, extensions, l10n, window, type Disposable } from "vscode";
import { commitMessages, isExample } from "./asking/commitPrompt";
import { commitDiff, latestSubjects } from "./asking/workingDiff";
import type { ChatMessage } from "../engine/protocol";
import { chatParams } from "./chat";
import type { Engine } from "./client";
import { Failure, isCancellation, plainFailure } from "./errors";
import { wholeOf } from "./pins";
import { folders, rootOf } from "./roots";

/** Longest message: a subject and some lines below it. */
const tokensMax = 120;
/** Of the latest commits: they show how messages are written here. */
const subjectsMax = 12;

/** The box above the changes, as the editor's own Git extension hands it out. */
interface InputBox {
  value: string;
}

interface Repository {
  readonly rootUri: Uri;
  readonly inputBox: InputBox;
}

/** Writes the message of the commit that is being made into the box above the changes, as it comes. */
export class CommitMessage implements Disposable {
  readonly #engine: Engine;
  #running: CancellationTokenSource | undefined;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  dispose(): void {
    this.#running?.cancel();
  }

  /** `what` is the repository whose button was pressed; from the palette the first one, or that of the open file. */
  async write(what: unknown): Promise<void> {
    const repository = await repositoryFor(what);
    const root = repository.rootUri.fsPath;
    const { text, paths } = await commitDiff(root).catch((error: unknown) => {
      throw new Failure("gitFailed", error instanceof Error ? error.message : "");
    });
    if (text === "") throw plainFailure("nothingToCommit");
    const messages = commitMessages(text, paths, await latestSubjects(root, subjectsMax));
    this.#running?.cancel();
    const running = new CancellationTokenSource();
    this.#running = running;
    try {
      await window.withProgress({ location: ProgressLocation.SourceControl }, () =>
        this.#fill(repository.inputBox, root, messages, paths, running),
      );
    } catch (error) {
      if (!isCancellation(error)) throw error;
    } finally {
      running.dispose();
      if (this.#running === running) this.#running = undefined;
    }
  }

  /** Whoever writes into the box meanwhile keeps what they wrote. */
  async #fill(
    box: InputBox,
    root: string,
    messages: readonly ChatMessage[],
    paths: readonly string[],
    running: CancellationTokenSource,
  ): Promise<void> {
    // The editor repeats what it was given a moment later: until then the box says what was written into it before.
    const written = new Set([box.value]);
    let answer = "";
    const put = (): void => {
      if (!written.has(box.value)) return running.cancel();
      const message = messageFrom(answer);
      written.add(message);
      box.value = message;
    };
    const known = this.#knownRoot(root);
    const pins = known === "" ? [] : paths.map(wholeOf);
    const params = { ...chatParams(known, messages, pins), tokensMax };
    const result = await this.#engine.chat(
      params,
      (delta) => {
        if (delta.kind !== "text") return;
        answer += delta.text;
        put();
      },
      running.token,
    );
    // A message that was shown as an example is none of this change.
    answer = isExample(messageFrom(result.text)) ? "" : result.text;
    put();
    if (messageFrom(answer) === "") window.setStatusBarMessage(l10n.t("The model wrote no message."), 3_000);
  }

  /** The repository as the engine has read it; "" when it has not: a message needs no more than the change. */
  #knownRoot(root: string): string {
    const isOpen = folders().some((folder) => rootOf(folder) === root);
    const contexts = this.#engine.status?.contexts ?? [];
    return isOpen && contexts.some((context) => context.root === root && context.tokens > 0) ? root : "";
  }
}

/** What a model answers → the message: without fences, quotes or an announcement around it, and no line of a change. Pure. */
export function messageFrom(answer: string): string {
  const fence = /```\w*\n([\s\S]*?)(?:\n?```|$)/.exec(answer);
  const text = (fence?.[1] ?? answer).trim();
  const said = text.replace(/^(?:here is[^\n]*|commit message|subject)\s*:\s*/i, "");
  const written = said.split(/\r?\n/).map((line) => line.trimEnd());
  const repeated = written.findIndex((line) => changeLine.test(line));
  const lines = repeated < 0 ? written : written.slice(0, repeated);
  const [subject = "", ...body] = lines;
  const bare = /^(["'`*]+)(.*?)\1$/.exec(subject)?.[2] ?? subject;
  const rest = body.join("\n").trim();
  return rest === "" ? bare : `${bare}\n\n${rest}`;
}

/** A model that goes on with the change has said what it had to say. */
const changeLine = /^(```|diff --git |index [0-9a-f]+\.\.|@@ |--- |\+\+\+ |File \S+$)/;

async function repositoryFor(what: unknown): Promise<Repository> {
  const repositories = await gitRepositories();
  const asked = rootUriOf(what) ?? window.activeTextEditor?.document.uri;
  const around = repositories
    .filter(({ rootUri }) => asked !== undefined && isWithin(asked.fsPath, rootUri.fsPath))
    .toSorted((a, b) => b.rootUri.fsPath.length - a.rootUri.fsPath.length);
  const found = around[0] ?? repositories[0];
  if (found === undefined) throw plainFailure("noRepository");
  return found;
}

function isWithin(file: string, folder: string): boolean {
  return file === folder || file.startsWith(folder.endsWith("/") ? folder : `${folder}/`);
}

/** Of the view's button. */
function rootUriOf(what: unknown): Uri | undefined {
  if (typeof what !== "object" || what === null || !("rootUri" in what)) return undefined;
  return what.rootUri instanceof Uri ? what.rootUri : undefined;
}

/** What the editor's Git extension knows; none where it is missing or turned off. */
async function gitRepositories(): Promise<readonly Repository[]> {
  const git = extensions.getExtension<unknown>("vscode.git");
  const exported: unknown = git === undefined ? undefined : await git.activate();
  if (!isGit(exported)) return [];
  try {
    return exported.getAPI(1).repositories;
  } catch {
    // Turned off in the settings.
    return [];
  }
}

function isGit(value: unknown): value is { getAPI(version: 1): { readonly repositories: readonly Repository[] } } {
  return typeof value === "object" && value !== null && "getAPI" in value && typeof value.getAPI === "function";
}
