/** One chat turn: behind the repository's context, in a tail that is kept for the next turn of the same conversation. */

import type { RepositoryContext } from "../contexts/repositoryContext";
import type { Focus } from "../contexts/selection";
import type { Tail } from "../contexts/tails";
import { Cancelled, EngineError } from "../errors";
import { generate, nothingAttended, type Attended, type Generated } from "../generation/generate";
import type { Log } from "../log";
import type { SamplingOptions } from "../native/addon";
import type { ChatDelta, ChatParams, ChatResult, EngineSettings, Usage } from "../protocol";
import type { Job } from "../scheduler/scheduler";
import { computeChatBase, loadChatBase } from "../sessions/prepareChats";
import type { Session } from "../sessions/session";
import type { Sessions } from "../sessions/sessions";
import { abortable } from "../util/abortable";
import { joinTokens } from "../util/joinTokens";
import { Attribution } from "./attribution";
import { Conversations } from "./conversations";
import { namesAskedFor } from "./names";

export interface ChatOptions {
  readonly sessions: Sessions;
  readonly log: Log;
  /** A request is over; what it attended to is of interest to the status. */
  readonly onAttended: (root: string, attended: Attended) => void;
  /** Reads again what was lost of a repository to a damaged file. */
  readonly repair: (root: string, settings: EngineSettings, signal: AbortSignal) => Promise<void>;
}

export interface ChatRequest {
  /** Canonical, or "" for none. */
  readonly root: string;
  readonly params: Pick<
    ChatParams,
    "messages" | "pins" | "scope" | "why" | "tools" | "tokensMax" | "temperature" | "seed"
  >;
  readonly settings: EngineSettings;
  readonly signal: AbortSignal;
  readonly onDelta: (delta: ChatDelta) => void;
}

/** Small models repeat themselves without a penalty; the rest is what the makers of the default model advise. */
const topK = 20;
const topP = 0.8;
const repetitionPenalty = 1.1;

/** Work that nobody waits for begins after so long without a question. */
const quietMs = 3_000;

/** A disk that spoils whatever is written to it has to be heard of. */
const attemptsMax = 8;

/** An answer is always left room for, however long the conversation. */
const answerTokensMin = 64;

export class Chat {
  readonly #options: ChatOptions;
  readonly #conversations = new WeakMap<RepositoryContext, Conversations>();
  readonly #attribution = new Attribution();
  #quiet: NodeJS.Timeout | undefined;
  #answering = 0;

  constructor(options: ChatOptions) {
    this.#options = options;
  }

  /** Answers being given at the moment. */
  get answering(): number {
    return this.#answering;
  }

  /** Streams text as deltas. Cancelling resolves with what was said until then. */
  async ask(request: ChatRequest): Promise<ChatResult> {
    const { settings, signal, onDelta } = request;
    const startedAt = performance.now();
    this.#answering += 1;
    clearTimeout(this.#quiet);
    try {
      if (this.#options.sessions.loaded.length === 0) onDelta({ kind: "stage", stage: "loading" });
      return await this.#options.sessions.use(settings, signal, (session) => this.#ask(session, request, startedAt));
    } catch (error) {
      if (error instanceof Cancelled) return nothingSaid;
      throw error;
    } finally {
      this.#answering -= 1;
    }
  }

  /**
   * Where a damaged file comes to light, what it held is read again, and the question asked once more: the same KV gives
   * the same answer, so what was said stands.
   */
  async #ask(session: Session, request: ChatRequest, startedAt: number): Promise<ChatResult> {
    const { root } = request;
    const context = await session.context(root);
    let said = 0;
    for (let attempt = 1; ; attempt++) {
      let repeated = 0;
      const onDelta = (delta: ChatDelta): void => {
        if (delta.kind !== "text") return request.onDelta(delta);
        const text = delta.text.slice(Math.max(0, said - repeated));
        repeated += delta.text.length;
        said += text.length;
        if (text !== "") request.onDelta({ kind: "text", text });
      };
      try {
        return await this.#answer(session, context, { ...request, onDelta }, startedAt);
      } catch (error) {
        if (attempt === attemptsMax || !(await context.setAsideFrom(error))) throw error;
      }
      this.#options.log.info(`Answering again after a damaged file of ${root}`);
    }
  }

  async #answer(
    session: Session,
    context: RepositoryContext,
    request: ChatRequest,
    startedAt: number,
  ): Promise<ChatResult> {
    const { root, params, signal, onDelta } = request;
    if (root !== "" && context.record === undefined) throw notIndexed(root);
    if (context.needsRestoring) {
      onDelta({ kind: "stage", stage: "restoring" });
      await abortable(context.restore(), signal);
    }
    await abortable(loadChatBase(session, context), signal);
    // Reading ahead brings damage to light, too.
    if (context.needsRepair) {
      onDelta({ kind: "stage", stage: "reading" });
      await this.#options.repair(root, request.settings, signal);
      await abortable(loadChatBase(session, context), signal);
    }
    const restoredAt = performance.now();
    const conversations = this.#conversationsOf(session, context);
    const scope = params.scope ?? [];
    const turn = conversations.turn(params.messages, scope);

    const room = session.info.contextLength - context.segmentBase - session.segmentPositions;
    const answerTokensMax = Math.min(params.tokensMax, Math.max(answerTokensMin, Math.floor(room / 2)));
    const { tokens } = await session.text.chat({
      messages: turn.messages,
      tokensMax: room - answerTokensMax,
      repository: root !== "",
    });
    onDelta({ kind: "stage", stage: "reading" });

    const named = await context.named(namesAskedFor(params.messages));
    const focus: Focus = { pins: params.pins ?? [], scope, hidden: turn.hidden, named };
    const tail = await context.tail(context.chatTails, tokens, focus, turn.attends);
    const job: Job = { kind: "chat", signal };
    let generated: Generated | undefined;
    try {
      generated = await generate({
        scheduler: session.scheduler,
        job,
        sequence: tail.sequence,
        tokens,
        tokensMax: answerTokensMax,
        sampling: samplingOf(params),
        stopIds: session.text.answerStopIds,
        bannedIds: session.text.bannedIds,
        stopStrings: [],
        stream: session.text.decodeStream(),
        masses: tail.segments.length > 0,
        grammar: params.tools === undefined ? undefined : session.toolGrammar(params.tools),
        onText: (text) => onDelta({ kind: "text", text }),
      });
    } finally {
      if (generated === undefined) context.chatTails.drop(tail);
      else context.chatTails.release(tail, joinTokens(tokens, generated.ids));
    }
    conversations.keep(params.messages, scope, tail.attends, turn);
    this.#options.onAttended(root, generated.attended);
    if (params.why === true) await this.#attribution.prepare(session, context, job);
    if (generated.finish !== "cancelled") this.#getReady(session, context);
    return {
      text: generated.text,
      finish: generated.finish,
      ...(root === "" ? { references: [] } : this.#attribution.of(context, tail, generated.masses)),
      usage: usageOf(context, tail, tokens, generated, { startedAt, restoredAt }),
    };
  }

  /** Does ahead what the next questions need. What cannot be done now is done with them. */
  #getReady(session: Session, context: RepositoryContext): void {
    void computeChatBase(session, context, this.#options.log);
    clearTimeout(this.#quiet);
    this.#quiet = setTimeout(() => {
      const job: Job = { kind: "indexing", signal: new AbortController().signal };
      this.#attribution.prepare(session, context, job).catch((error: unknown) => {
        this.#options.log.info(`Neutral answers were not measured: ${String(error)}`);
      });
    }, quietMs);
    this.#quiet.unref();
  }

  #conversationsOf(session: Session, context: RepositoryContext): Conversations {
    const known = this.#conversations.get(context);
    if (known !== undefined) return known;
    const conversations = new Conversations(context, session.text);
    this.#conversations.set(context, conversations);
    return conversations;
  }
}

function usageOf(
  context: RepositoryContext,
  tail: Tail,
  tokens: Uint32Array,
  generated: Generated,
  at: { readonly startedAt: number; readonly restoredAt: number },
): Usage {
  const { millis } = generated;
  const restore = at.restoredAt - at.startedAt;
  return {
    contextTokens:
      context.root === ""
        ? 0
        : context.segmentBase + tail.segments.reduce((total, segment) => total + segment.tokens, 0),
    promptTokens: tokens.length,
    answerTokens: generated.ids.length,
    ...generated.attended,
    millis: {
      restore: Math.round(restore),
      prefill: Math.round(millis.prefill),
      firstToken: Math.round(restore + millis.firstToken),
      decode: Math.round(millis.decode),
    },
  };
}

function samplingOf({ temperature, seed }: ChatRequest["params"]): SamplingOptions {
  return { temperature, topK, topP, minP: 0, repetitionPenalty, seed };
}

function notIndexed(root: string): EngineError {
  return new EngineError(
    "notIndexed",
    `${root} has not been read yet: run "Nosa: Index Repository" (or "npm run index") first.`,
  );
}

const nothingSaid: ChatResult = {
  text: "",
  finish: "cancelled",
  references: [],
  usage: {
    contextTokens: 0,
    promptTokens: 0,
    answerTokens: 0,
    ...nothingAttended,
    millis: { restore: 0, prefill: 0, firstToken: 0, decode: 0 },
  },
};
