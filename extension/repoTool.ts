import {
  LanguageModelTextPart,
  LanguageModelToolResult,
  Uri,
  l10n,
  lm,
  workspace,
  type CancellationToken,
  type Disposable,
  type LanguageModelTool,
  type LanguageModelToolInvocationOptions,
  type LanguageModelToolInvocationPrepareOptions,
  type PreparedToolInvocation,
} from "vscode";
import type { ChatResult, Reference } from "../engine/protocol";
import { chatParams } from "./chat";
import type { Engine } from "./client";
import { failureFrom, failureView, plainFailure } from "./errors";
import { referenceLabel, shownReferences } from "./references";
import { currentFolder, rootOf } from "./roots";

/** As package.json names it. */
export const repoToolName = "nosa_repo";

/** A small answer: what matters are the lines it drew on. */
const answerTokensMax = 256;
/** Characters of one token, on the safe side. */
const charactersPerToken = 3;
const charactersDefault = 12_000;

export interface RepoToolInput {
  readonly question: string;
}

/**
 * `#repo`: any model may ask our model, which has read the repository. It gets the answer, and the very lines that the
 * answer attended to. Reads, and changes nothing.
 */
export class RepoTool implements LanguageModelTool<RepoToolInput>, Disposable {
  readonly #engine: Engine;
  readonly #registration: Disposable;

  constructor(engine: Engine) {
    this.#engine = engine;
    this.#registration = lm.registerTool(repoToolName, this);
  }

  prepareInvocation(
    _options: LanguageModelToolInvocationPrepareOptions<RepoToolInput>,
    _token: CancellationToken,
  ): PreparedToolInvocation {
    return { invocationMessage: l10n.t("Asking what Nosa read of the repository") };
  }

  async invoke(
    options: LanguageModelToolInvocationOptions<RepoToolInput>,
    token: CancellationToken,
  ): Promise<LanguageModelToolResult> {
    try {
      if (!workspace.isTrusted) throw plainFailure("untrusted");
      const folder = currentFolder(this.#engine.status?.contexts ?? []);
      if (folder === undefined) throw plainFailure("noFolder");
      const messages = [{ role: "user", content: options.input.question }] as const;
      const params = { ...chatParams(rootOf(folder), messages), tokensMax: answerTokensMax, temperature: 0 };
      const result = await this.#engine.chat(params, () => undefined, token);
      const budget = options.tokenizationOptions?.tokenBudget;
      const charactersMax = budget === undefined ? charactersDefault : budget * charactersPerToken;
      const spans = await Promise.all(shownReferences(result.references).map((each) => spanOf(folder.uri, each)));
      return textResult(recallText(result, spans, charactersMax));
    } catch (error) {
      // The other model is told in words: it can go on without.
      throw new Error(failureView(failureFrom(error)).text, { cause: error });
    }
  }

  dispose(): void {
    this.#registration.dispose();
  }
}

/** Lines of a file that an answer drew on. */
export interface Span {
  readonly label: string;
  readonly text: string;
}

async function spanOf(root: Uri, reference: Reference): Promise<Span> {
  const label = referenceLabel(reference);
  try {
    const document = await workspace.openTextDocument(Uri.joinPath(root, reference.path));
    const lines = document
      .getText()
      .split(/\r?\n/)
      .slice(reference.startLine - 1, reference.endLine);
    return { label, text: lines.join("\n") };
  } catch {
    return { label, text: "" };
  }
}

/** The answer, then the lines, best first, as many whole ones as fit. Pure. */
export function recallText(result: Pick<ChatResult, "text">, spans: readonly Span[], charactersMax: number): string {
  const parts = [result.text.trim()];
  let left = charactersMax - parts.join("").length;
  for (const { label, text } of spans) {
    const part = text === "" ? label : `${label}\n${text}`;
    left -= part.length + 2;
    if (left < 0) break;
    parts.push(part);
  }
  return parts.join("\n\n").slice(0, charactersMax);
}

function textResult(text: string): LanguageModelToolResult {
  return new LanguageModelToolResult([new LanguageModelTextPart(text)]);
}
