import {
  ChatRequestTurn,
  ChatResponseMarkdownPart,
  ChatResponseTurn,
  Location,
  Uri,
  chat,
  l10n,
  type CancellationToken,
  type ChatContext,
  type ChatFollowup,
  type ChatRequest,
  type ChatResponseStream,
  type ChatResult as EditorChatResult,
  type Disposable,
  type LogOutputChannel,
  type WorkspaceFolder,
} from "vscode";
import type { ChatMessage, ChatResult } from "../engine/protocol";
import { applyHint, offersOf, type ApplyHint } from "./apply/offers";
import { prepare, type Asking, type Prepared } from "./asking/prepare";
import { followUpsFor } from "./asking/prompts";
import { slashNamed } from "./asking/slash";
import type { Attention } from "./attention";
import { chatParams, stageText, usageText } from "./chat";
import { failureFrom, failureView, isCancellation, logText } from "./errors";
import { referenceLabel, referenceLocation, shownReferences } from "./references";
import { Scope } from "./util/disposables";

const participantId = "nosa.participant";

/** More buttons than this hide the answer. */
const applyButtonsMax = 4;

export interface ChatParticipantOptions extends Asking {
  readonly attention: Attention;
  readonly log: LogOutputChannel;
  readonly icon: Uri;
}

/** `@nosa` in the editor's own chat. Answers come from our engine, whatever model the chat has selected. */
export class ChatParticipant implements Disposable {
  readonly #options: ChatParticipantOptions;
  readonly #scope = new Scope();

  constructor(options: ChatParticipantOptions) {
    this.#options = options;
    const participant = this.#scope.add(
      chat.createChatParticipant(participantId, (request, context, stream, token) =>
        this.#answer(request, context, stream, token),
      ),
    );
    participant.iconPath = options.icon;
    participant.followupProvider = { provideFollowups: (result) => followupsOf(result) };
  }

  dispose(): void {
    this.#scope.dispose();
  }

  async #answer(
    request: ChatRequest,
    context: ChatContext,
    stream: ChatResponseStream,
    token: CancellationToken,
  ): Promise<EditorChatResult> {
    try {
      const command = slashNamed(request.command);
      const references = request.references.toReversed().map(({ value }) => referenceValue(value));
      const prepared = await prepare(this.#options, {
        command,
        text: request.prompt.trim(),
        references: references.filter((value) => value !== undefined),
      });
      const messages = [...historyOf(context), prepared.message];
      const result = await this.#options.engine.chat(
        chatParams(prepared.root, messages, prepared.pins),
        (delta) => {
          if (delta.kind === "stage") stream.progress(stageText(delta.stage));
          else stream.markdown(delta.text);
        },
        token,
      );
      this.#options.attention.learn(prepared.root, request.prompt, result);
      return finish({ request, prepared, result, hint: applyHint(command, prepared) }, stream);
    } catch (error) {
      if (isCancellation(error)) return {};
      return this.#fail(error, stream);
    }
  }

  #fail(error: unknown, stream: ChatResponseStream): EditorChatResult {
    const failure = failureFrom(error);
    this.#options.log.error(logText(failure));
    const { text, action } = failureView(failure);
    if (action !== null) stream.button({ title: action.label, command: action.command });
    return { errorDetails: { message: text } };
  }
}

interface Answered {
  readonly request: ChatRequest;
  readonly prepared: Prepared;
  readonly result: ChatResult;
  readonly hint: ApplyHint;
}

/** Links to the lines it drew on, buttons for its code, and what a later turn needs to know of this one. */
function finish(answered: Answered, stream: ChatResponseStream): EditorChatResult {
  const { request, prepared, result, hint } = answered;
  const isWhole = prepared.folder !== undefined && result.finish !== "cancelled";
  const references = isWhole ? shownReferences(result.references) : [];
  if (prepared.folder !== undefined) linkReferences(prepared.folder, references, stream);
  // Last: the editor folds away everything that stands before the last stretch of text.
  if (result.finish !== "cancelled") offerCode(result.text, hint, stream);
  return {
    metadata: {
      asked: prepared.message.content,
      answered: result.text,
      command: request.command ?? "",
      usage: usageText(result.usage),
      references: references.map(referenceLabel),
    },
  };
}

function offerCode(answer: string, hint: ApplyHint, stream: ChatResponseStream): void {
  const offers = offersOf(answer, hint).slice(0, applyButtonsMax);
  for (const [index, offer] of offers.entries()) {
    const place = offer.path === "" ? Uri.parse(offer.about === "" ? "file:" : offer.about).path : offer.path;
    const name = place.split("/").at(-1) ?? "";
    const title = name === "" ? l10n.t("Preview in the open file") : l10n.t("Preview in {0}", name);
    // Several buttons below one answer would read the same.
    const numbered = offers.length === 1 ? title : l10n.t("{0} ({1} of {2})", title, index + 1, offers.length);
    stream.button({ title: numbered, command: "nosa.previewCode", arguments: [offer] });
  }
}

function linkReferences(
  folder: WorkspaceFolder,
  references: ReturnType<typeof shownReferences>,
  stream: ChatResponseStream,
): void {
  if (references.length === 0) return;
  stream.markdown(`\n\n${l10n.t("Drawn from")} `);
  for (const reference of references) {
    const location = referenceLocation(folder, reference);
    stream.reference(location);
    stream.anchor(location, referenceLabel(reference));
    stream.markdown(" ");
  }
}

function referenceValue(value: unknown): Uri | Location | string | undefined {
  return typeof value === "string" || value instanceof Uri || value instanceof Location ? value : undefined;
}

/** Earlier turns with `@nosa`, word for word as the model had them, so that their KV is found again. */
function historyOf(context: ChatContext): readonly ChatMessage[] {
  const messages: ChatMessage[] = [];
  let prompt = "";
  for (const turn of context.history) {
    if (turn instanceof ChatRequestTurn) prompt = turn.prompt;
    if (!(turn instanceof ChatResponseTurn)) continue;
    const asked = metadataText(turn.result, "asked") || prompt;
    const answered = metadataText(turn.result, "answered") || writtenText(turn);
    if (asked !== "" && answered !== "") {
      messages.push({ role: "user", content: asked }, { role: "assistant", content: answered });
    }
    prompt = "";
  }
  return messages;
}

/** Of an answer that was stopped: nothing but its text is known. */
function writtenText(turn: ChatResponseTurn): string {
  const parts = turn.response.filter((part) => part instanceof ChatResponseMarkdownPart);
  return parts
    .map((part) => part.value.value)
    .join("")
    .trim();
}

function metadataText(result: EditorChatResult | undefined, name: string): string {
  const value: unknown = result?.metadata?.[name];
  return typeof value === "string" ? value : "";
}

function followupsOf(result: EditorChatResult): ChatFollowup[] {
  const labels: unknown = result.metadata?.["references"];
  const texts = Array.isArray(labels) ? labels.filter((label) => typeof label === "string") : [];
  return followUpsFor(slashNamed(metadataText(result, "command")), texts).map(({ command, text }) => ({
    prompt: text,
    label: command === undefined ? text : `/${command} ${text}`,
    participant: participantId,
    ...(command === undefined ? {} : { command }),
  }));
}
