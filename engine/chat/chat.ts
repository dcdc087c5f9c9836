/** One chat turn: behind the repository's context, in a tail that is kept for the next turn of the same conversation. */

import { limits } from "../config";
import type { RepositoryContext } from "../contexts/repositoryContext";
import type { Tail } from "../contexts/tails";
import { Cancelled, EngineError } from "../errors";
import { generate, type Generated } from "../generation/generate";
import { references } from "../generation/references";
import type { Log } from "../log";
import type { SamplingOptions } from "../native/addon";
import type { ChatDelta, ChatParams, ChatResult, EngineSettings, Usage } from "../protocol";
import type { Job } from "../scheduler/scheduler";
import { computeChatBase, loadChatBase } from "../sessions/prepareChats";
import type { Session } from "../sessions/session";
import type { Sessions } from "../sessions/sessions";
import { abortable } from "../util/abortable";
import { joinTokens } from "../util/joinTokens";

export interface ChatOptions {
  readonly sessions: Sessions;
  readonly log: Log;
  /** A request is over; what it attended to is of interest to the status. */
  readonly onAttended: (root: string, attendedBlocks: number, totalBlocks: number) => void;
}

export interface ChatRequest {
  /** Canonical, or "" for none. */
  readonly root: string;
  readonly params: Pick<ChatParams, "messages" | "tokensMax" | "temperature" | "seed">;
  readonly settings: EngineSettings;
  readonly signal: AbortSignal;
  readonly onDelta: (delta: ChatDelta) => void;
}

/** Small models repeat themselves without a penalty; the rest is what the makers of the default model advise. */
const topK = 20;
const topP = 0.8;
const repetitionPenalty = 1.1;

/** An answer is always left room for, however long the conversation. */
const answerTokensMin = 64;

export class Chat {
  readonly #options: ChatOptions;
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
    try {
      if (this.#options.sessions.loaded.length === 0) onDelta({ kind: "stage", stage: "loading" });
      return await this.#options.sessions.use(settings, signal, (session) => this.#answer(session, request, startedAt));
    } catch (error) {
      if (error instanceof Cancelled) return nothingSaid;
      throw error;
    } finally {
      this.#answering -= 1;
    }
  }

  async #answer(session: Session, request: ChatRequest, startedAt: number): Promise<ChatResult> {
    const { root, params, signal, onDelta } = request;
    const context = await session.context(root);
    if (root !== "" && context.record === undefined) throw notIndexed(root);
    if (context.needsRestoring) {
      onDelta({ kind: "stage", stage: "restoring" });
      await abortable(context.restore(), signal);
    }
    await abortable(loadChatBase(session, context), signal);
    const restoredAt = performance.now();

    const room = session.info.contextLength - context.segmentBase - session.segmentPositions;
    const answerTokensMax = Math.min(params.tokensMax, Math.max(answerTokensMin, Math.floor(room / 2)));
    const { tokens } = await session.text.chat({
      messages: params.messages,
      tokensMax: room - answerTokensMax,
      repository: root !== "",
    });
    onDelta({ kind: "stage", stage: "reading" });

    const all = (): boolean => false;
    const tail = await context.chatTails.acquire(context.attendsWithout(all), tokens, () => context.newTail(all));
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
        onText: (text) => onDelta({ kind: "text", text }),
      });
    } finally {
      if (generated === undefined) context.chatTails.drop(tail);
      else context.chatTails.release(tail, joinTokens(tokens, generated.ids));
    }
    this.#options.onAttended(root, generated.attendedBlocks, generated.totalBlocks);
    if (generated.finish !== "cancelled") void computeChatBase(session, context, this.#options.log);
    return {
      text: generated.text,
      finish: generated.finish,
      references: references(generated.masses, tail.segments, { countMax: limits.referencesMax }),
      usage: usageOf(context, tail, tokens, generated, { startedAt, restoredAt }),
    };
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
    attendedBlocks: generated.attendedBlocks,
    totalBlocks: generated.totalBlocks,
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
    attendedBlocks: 0,
    totalBlocks: 0,
    millis: { restore: 0, prefill: 0, firstToken: 0, decode: 0 },
  },
};
