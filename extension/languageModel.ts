import {
  EventEmitter,
  LanguageModelChatMessageRole,
  LanguageModelTextPart,
  lm,
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
import type { ChatMessage, EngineStatus } from "../engine/protocol";
import { chatParams } from "./chat";
import type { Engine } from "./client";
import { failureFrom, isCancellation } from "./errors";
import { currentFolder, rootOf } from "./roots";
import { Scope } from "./util/disposables";

const vendor = "nosa";

/** Of the editor's prompt and of the answer. The repository is not counted: it comes from the engine's own context. */
const inputTokensMax = 8_192;
const outputTokensMax = 1_024;

/** Offers our model in the editor's model picker. It chats, with the repository in front; it calls no tools. */
export class LanguageModel implements LanguageModelChatProvider, Disposable {
  readonly #engine: Engine;
  readonly #log: LogOutputChannel;
  readonly #scope = new Scope();
  readonly #changed = this.#scope.add(new EventEmitter<void>());
  readonly onDidChangeLanguageModelChatInformation = this.#changed.event;
  #name = "";

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
    _options: ProvideLanguageModelChatResponseOptions,
    progress: Progress<LanguageModelResponsePart>,
    token: CancellationToken,
  ): Promise<void> {
    const folder = currentFolder(this.#engine.status?.contexts ?? []);
    const params = chatParams(folder === undefined ? "" : rootOf(folder), messages.map(plainMessage));
    try {
      await this.#engine.chat(
        { ...params, tokensMax: outputTokensMax },
        (delta) => {
          if (delta.kind === "text") progress.report(new LanguageModelTextPart(delta.text));
        },
        token,
      );
    } catch (error) {
      if (isCancellation(error)) return;
      throw failureFrom(error);
    }
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

  #rename(): void {
    const { name } = modelInformation(this.#engine.status);
    if (name === this.#name) return;
    this.#name = name;
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
    detail: "on this machine",
    tooltip: "Runs on this machine, with the repository in its context",
    maxInputTokens: inputTokensMax,
    maxOutputTokens: outputTokensMax,
    capabilities: { toolCalling: false, imageInput: false },
  };
}

/**
 * The editor sends a third role, 3, for its own instructions; the stable typings do not name it, and taking it for an
 * assistant's turn would put those instructions in the model's mouth.
 */
export function plainMessage(message: LanguageModelChatRequestMessage): ChatMessage {
  const role: number = message.role;
  const content = textOf(message);
  if (role === systemRole) return { role: "system", content };
  return { role: role === LanguageModelChatMessageRole.Assistant ? "assistant" : "user", content };
}

const systemRole = 3;

/** Text parts only: the model sees no images, and is offered no tools. */
function textOf(message: LanguageModelChatRequestMessage): string {
  return message.content
    .filter((part) => part instanceof LanguageModelTextPart)
    .map((part) => part.value)
    .join("");
}

/**
 * An upper estimate: the tokenizer is the engine's, and the editor counts too often to ask over the socket. Code has
 * about 3.8 bytes a token.
 */
function tokensAtMost(text: string): number {
  return Math.ceil(Buffer.byteLength(text) / 3);
}
