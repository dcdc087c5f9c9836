import {
  ChatRequestTurn,
  ChatResponseMarkdownPart,
  ChatResponseTurn,
  Location,
  Uri,
  chat,
  workspace,
  type CancellationToken,
  type ChatContext,
  type ChatFollowup,
  type ChatPromptReference,
  type ChatRequest,
  type ChatResponseStream,
  type ChatResult as EditorChatResult,
  type Disposable,
  type LogOutputChannel,
  type WorkspaceFolder,
} from "vscode";
import type { ChatMessage, ChatResult } from "../engine/protocol";
import { chatParams, stageText, usageText } from "./chat";
import type { Engine } from "./client";
import { failureFrom, failureView, isCancellation } from "./errors";
import { attachedText, followupsFor } from "./prompting";
import { referenceLabel, referenceLocation, shownReferences } from "./references";
import { currentFolder, rootOf } from "./roots";
import { Scope } from "./util/disposables";

const participantId = "nosa.participant";

/** `@nosa` in the editor's own chat. Answers come from our engine, whatever model the chat has selected. */
export class ChatParticipant implements Disposable {
  readonly #engine: Engine;
  readonly #log: LogOutputChannel;
  readonly #scope = new Scope();

  constructor(engine: Engine, log: LogOutputChannel, icon: Uri) {
    this.#engine = engine;
    this.#log = log;
    const participant = this.#scope.add(
      chat.createChatParticipant(participantId, (request, context, stream, token) =>
        this.#answer(request, context, stream, token),
      ),
    );
    participant.iconPath = icon;
    participant.followupProvider = {
      provideFollowups: (result) => followupsOf(result),
    };
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
    const folder = currentFolder(this.#engine.status?.contexts ?? []);
    const root = folder === undefined ? "" : rootOf(folder);
    try {
      const messages = [...historyOf(context), { role: "user", content: await questionOf(request) } as const];
      const result = await this.#engine.chat(
        chatParams(root, messages),
        (delta) => {
          if (delta.kind === "stage") stream.progress(stageText(delta.stage));
          else stream.markdown(delta.text);
        },
        token,
      );
      return finish(result, folder, stream);
    } catch (error) {
      if (isCancellation(error)) return {};
      return this.#fail(error, stream);
    }
  }

  #fail(error: unknown, stream: ChatResponseStream): EditorChatResult {
    const failure = failureFrom(error);
    this.#log.error(`${failure.kind}: ${failure.message}`);
    const { text, action } = failureView(failure);
    if (action !== null) stream.button({ title: action.label, command: action.command });
    return { errorDetails: { message: text } };
  }
}

/** Links to the lines an answer drew on, then what it took. */
function finish(result: ChatResult, folder: WorkspaceFolder | undefined, stream: ChatResponseStream): EditorChatResult {
  const isWhole = folder !== undefined && result.finish !== "cancelled";
  const references = isWhole ? shownReferences(result.references) : [];
  if (folder !== undefined && references.length > 0) {
    stream.markdown("\n\nDrawn from ");
    for (const reference of references) {
      const location = referenceLocation(folder, reference);
      stream.reference(location);
      stream.anchor(location, referenceLabel(reference));
      stream.markdown(" ");
    }
  }
  return { metadata: { usage: usageText(result.usage), references: references.map(referenceLabel) } };
}

/** Earlier turns with `@nosa`, as text. A turn with no answer is left out. */
function historyOf(context: ChatContext): readonly ChatMessage[] {
  const messages: ChatMessage[] = [];
  for (const turn of context.history) {
    if (turn instanceof ChatRequestTurn) {
      messages.push({ role: "user", content: turn.prompt });
    } else if (turn instanceof ChatResponseTurn) {
      const content = answerOf(turn);
      if (content === "") messages.pop();
      else messages.push({ role: "assistant", content });
    }
  }
  return messages.at(-1)?.role === "user" ? messages.slice(0, -1) : messages;
}

function answerOf(turn: ChatResponseTurn): string {
  const parts = turn.response.filter((part) => part instanceof ChatResponseMarkdownPart);
  const text = parts.map((part) => part.value.value).join("");
  // What finish() added is for the reader, and would teach the model to invent links.
  return text.split("\n\nDrawn from ")[0]?.trim() ?? "";
}

async function questionOf(request: ChatRequest): Promise<string> {
  // The editor lists references from the last in the text to the first.
  const attached = await Promise.all(request.references.toReversed().map(textOf));
  const texts = attached.filter((text) => text !== "");
  return [...texts, request.prompt].join("\n\n");
}

async function textOf(reference: ChatPromptReference): Promise<string> {
  const { value } = reference;
  if (typeof value === "string") return value;
  const uri = value instanceof Location ? value.uri : value instanceof Uri ? value : undefined;
  if (uri === undefined) return "";
  try {
    const document = await workspace.openTextDocument(uri);
    const range = value instanceof Location ? value.range : undefined;
    return attachedText(workspace.asRelativePath(uri, false), document.getText(range), document.languageId);
  } catch {
    // A folder, or a file that is gone: the question stands without it.
    return "";
  }
}

function followupsOf(result: EditorChatResult): ChatFollowup[] {
  const labels: unknown = result.metadata?.["references"];
  const texts = Array.isArray(labels) ? labels.filter((label) => typeof label === "string") : [];
  return followupsFor(texts).map((prompt) => ({ prompt, participant: participantId }));
}
