import {
  EventEmitter,
  LanguageModelChatMessageRole,
  LanguageModelChatToolMode,
  LanguageModelTextPart,
  LanguageModelToolCallPart,
  LanguageModelToolResultPart,
  l10n,
  lm,
  workspace,
  type CancellationToken,
  type Disposable,
  type LanguageModelChatInformation,
  type LanguageModelChatProvider,
  type LanguageModelChatRequestMessage,
  type LanguageModelResponsePart,
  type LogOutputChannel,
  type PrepareLanguageModelChatModelOptions,
  type Progress,
  type ProvideLanguageModelChatResponseOptions,
} from "vscode";
import type { ChatMessage, EngineStatus, ToolUse } from "../engine/protocol";
import { chatParams } from "./chat";
import type { Engine } from "./client";
import { failureFrom, isCancellation } from "./errors";
import { currentFolder, mostRead, rootOf } from "./roots";
import {
  callProblem,
  CallReader,
  callText,
  correctionText,
  responseText,
  toolInstructions,
  toolUse,
  type Part,
  type Tool,
  type ToolCall,
} from "./toolCalling";
import { Scope } from "./util/disposables";

const vendor = "nosa";

/** Of the editor's prompt and of the answer. The repository is not counted: it comes from the engine's own context. */
const inputTokensMax = 16_384;
const outputTokensMax = 1_024;

/** Offers our model in the editor's model picker: for its chat, its agents and whatever else asks for a model. */
export class LanguageModel implements LanguageModelChatProvider, Disposable {
  readonly #engine: Engine;
  readonly #log: LogOutputChannel;
  readonly #scope = new Scope();
  readonly #changed = this.#scope.add(new EventEmitter<void>());
  readonly onDidChangeLanguageModelChatInformation = this.#changed.event;
  #shown = "";
  #calls = 0;

  constructor(engine: Engine, log: LogOutputChannel) {
    this.#engine = engine;
    this.#log = log;
    this.#scope.add(engine.onDidChange(() => this.#rename()));
    this.#scope.add(lm.registerLanguageModelChatProvider(vendor, this));
  }

  /**
   * Has the editor resolve the model now. A chat with no resolved model refuses the first `@nosa` message before our
   * handler is asked.
   */
  async resolve(): Promise<void> {
    const models = await lm.selectChatModels({ vendor });
    this.#log.debug(`The editor lists ${models.length} model(s) of ours.`);
  }

  provideLanguageModelChatInformation(
    _options: PrepareLanguageModelChatModelOptions,
    _token: CancellationToken,
  ): LanguageModelChatInformation[] {
    return [modelInformation(this.#engine.status)];
  }

  async provideLanguageModelChatResponse(
    _model: LanguageModelChatInformation,
    messages: readonly LanguageModelChatRequestMessage[],
    options: ProvideLanguageModelChatResponseOptions,
    progress: Progress<LanguageModelResponsePart>,
    token: CancellationToken,
  ): Promise<void> {
    const root = this.#root();
    const tools = toolsOf(options);
    const asked = [...instructionsFor(tools, options), ...messages.map(plainMessage)];
    try {
      const use = toolUse(tools, mustCall(options));
      const wrong = await this.#answer(root, asked, { tools, use, checks: true }, progress, token);
      if (wrong === undefined) return;
      this.#log.info(`A call of ${wrong.call.name} was not made: ${wrong.problem}.`);
      // Once more, told what was wrong. A second mistake is the tool's to refuse, in words that the model reads.
      const again = [
        ...asked,
        { role: "assistant", content: callText(wrong.call) } as const,
        { role: "user", content: correctionText(wrong.problem) } as const,
      ];
      await this.#answer(root, again, { tools, use, checks: false }, progress, token);
    } catch (error) {
      if (isCancellation(error)) return;
      throw failureFrom(error);
    }
  }

  /** "" where nothing was read: whoever writes a commit message with this model has not asked for a repository. */
  #root(): string {
    const { status } = this.#engine;
    const folder = currentFolder(status?.contexts ?? []);
    if (folder === undefined || !workspace.isTrusted) return "";
    const root = rootOf(folder);
    return status === null || mostRead([root], status.contexts) !== undefined ? root : "";
  }

  /** Streams text and calls; where it checks, keeps back the first call that does not fit its tool's schema, and gives it. */
  async #answer(
    root: string,
    messages: readonly ChatMessage[],
    { tools, use, checks }: Calling,
    progress: Progress<LanguageModelResponsePart>,
    token: CancellationToken,
  ): Promise<WrongCall | undefined> {
    const reader = new CallReader(tools);
    let wrong: WrongCall | undefined;
    const report = (parts: readonly Part[]): void => {
      for (const part of parts) {
        const problem = part.kind === "call" && checks ? callProblem(part.call, tools) : undefined;
        if (part.kind === "call" && problem !== undefined) wrong ??= { call: part.call, problem };
        else if (wrong === undefined) progress.report(this.#responsePart(part));
      }
    };
    await this.#engine.chat(
      { ...chatParams(root, messages), tokensMax: outputTokensMax, ...(use === undefined ? {} : { tools: use }) },
      (delta) => {
        if (delta.kind === "text") report(reader.push(delta.text));
      },
      token,
    );
    report(reader.end());
    return wrong;
  }

  provideTokenCount(
    _model: LanguageModelChatInformation,
    text: string | LanguageModelChatRequestMessage,
    _token: CancellationToken,
  ): Promise<number> {
    return Promise.resolve(tokensAtMost(typeof text === "string" ? text : textOf(text)));
  }

  dispose(): void {
    this.#scope.dispose();
  }

  #responsePart(part: Part): LanguageModelResponsePart {
    if (part.kind === "text") return new LanguageModelTextPart(part.text);
    this.#calls += 1;
    return new LanguageModelToolCallPart(`nosa-call-${this.#calls}`, part.call.name, part.call.input);
  }

  #rename(): void {
    const { name, detail } = modelInformation(this.#engine.status);
    const shown = `${name} ${detail ?? ""}`;
    if (shown === this.#shown) return;
    this.#shown = shown;
    this.#changed.fire();
  }
}

export function modelInformation(status: EngineStatus | null): LanguageModelChatInformation {
  const model = status?.model ?? null;
  return {
    id: "nosa-local",
    name: model === null ? "Nosa" : `Nosa: ${model.name}`,
    family: "nosa",
    version: status?.engineVersion ?? "0",
    detail: isSlow(status) ? l10n.t("on this machine's processor: slow with long prompts") : l10n.t("on this machine"),
    tooltip: l10n.t("Runs on this machine, with the repository in its context"),
    maxInputTokens: inputTokensMax,
    maxOutputTokens: outputTokensMax,
    capabilities: { toolCalling: true, imageInput: false },
  };
}

/** An agent's prompt is thousands of tokens; a processor reads some hundreds a second. */
function isSlow(status: EngineStatus | null): boolean {
  return status === null || status.device === "" || status.device.startsWith("CPU");
}

/**
 * The editor sends a third role, 3, for its own instructions; the stable typings do not name it, and taking it for an
 * assistant's turn would put those instructions in the model's mouth.
 */
export function plainMessage(message: LanguageModelChatRequestMessage): ChatMessage {
  const role: number = message.role;
  const content = textOf(message);
  if (role === systemRole) return { role: "system", content };
  return { role: role === assistantRole ? "assistant" : "user", content };
}

const systemRole = 3;
const assistantRole: number = LanguageModelChatMessageRole.Assistant;

/** How an answer may call. */
interface Calling {
  readonly tools: readonly Tool[];
  readonly use: ToolUse | undefined;
  /** Whether a call that does not fit is kept back. */
  readonly checks: boolean;
}

interface WrongCall {
  readonly call: ToolCall;
  readonly problem: string;
}

function toolsOf(options: ProvideLanguageModelChatResponseOptions): readonly Tool[] {
  return (options.tools ?? []).map(({ name, description, inputSchema }) => ({
    name,
    description,
    schema: inputSchema ?? { type: "object", properties: {} },
  }));
}

function mustCall({ toolMode }: ProvideLanguageModelChatResponseOptions): boolean {
  return toolMode === LanguageModelChatToolMode.Required;
}

function instructionsFor(
  tools: readonly Tool[],
  options: ProvideLanguageModelChatResponseOptions,
): readonly ChatMessage[] {
  const content = toolInstructions(tools, mustCall(options));
  return content === "" ? [] : [{ role: "system", content }];
}

/** Words, calls and their results; the model sees no images. */
function textOf(message: LanguageModelChatRequestMessage): string {
  return message.content.map(partText).join("");
}

function partText(part: unknown): string {
  if (part instanceof LanguageModelTextPart) return part.value;
  if (part instanceof LanguageModelToolCallPart) return callText({ name: part.name, input: part.input });
  if (part instanceof LanguageModelToolResultPart) return responseText(part.content.map(partText).join(""));
  return "";
}

/**
 * An upper estimate: the tokenizer is the engine's, and the editor counts too often to ask over the socket. Code has
 * about 3.8 bytes a token.
 */
function tokensAtMost(text: string): number {
  return Math.ceil(Buffer.byteLength(text) / 3);
}
