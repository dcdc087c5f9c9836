/**
 * Ghost text: what the model would write at the cursor, knowing the repository.
 *
 * The live text of the file is in the tail. Segments that hold the file as it was read are therefore left out of what
 * that tail attends to, so that the model never sees an old state of it beside the new one. (Small files that share a
 * segment with it are left out with it.) The tail is kept, so that typing on costs what was typed.
 */

import { limits } from "../config";
import type { SegmentRecord } from "../contexts/context";
import type { RepositoryContext } from "../contexts/repositoryContext";
import { Cancelled } from "../errors";
import { generate, type Generated } from "../generation/generate";
import type { SamplingOptions } from "../native/addon";
import type { CompletionStats, EngineSettings } from "../protocol";
import type { Job } from "../scheduler/scheduler";
import type { Session } from "../sessions/session";
import type { Sessions } from "../sessions/sessions";
import { abortable } from "../util/abortable";
import { joinTokens } from "../util/joinTokens";
import { CompletionCache, type Place } from "./cache";
import { postprocess } from "./postprocess/index";
import { shapeAt, type Shape } from "./shape";
import { CompletionWindow } from "./window";

export interface CompletionsOptions {
  readonly sessions: Sessions;
  readonly onAttended: (root: string, attendedBlocks: number, totalBlocks: number) => void;
}

export interface CompletionRequest {
  /** Canonical root of the repository the file is in, or "". */
  readonly root: string;
  readonly uri: string;
  /** Relative to the root, with forward slashes; the file's name when there is no root. */
  readonly path: string;
  readonly languageId: string;
  readonly before: string;
  readonly after: string;
  /** Asked for by typing rather than by name: then it may be declined. */
  readonly automatic: boolean;
  readonly settings: EngineSettings;
  readonly signal: AbortSignal;
}

export interface Completion {
  readonly text: string;
  readonly stats: CompletionStats;
}

const greedy: SamplingOptions = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };

/** An offer that takes longer to write is offered as far as it got. */
const decodeMsMax = 2_500;

export class Completions {
  readonly #options: CompletionsOptions;
  readonly #cache = new CompletionCache(limits.completionCacheEntriesMax);
  readonly #window = new CompletionWindow();
  #completing = 0;

  constructor(options: CompletionsOptions) {
    this.#options = options;
  }

  get completing(): number {
    return this.#completing;
  }

  /** Undefined where there is nothing to offer, and when the request was cancelled. */
  async complete(request: CompletionRequest): Promise<Completion | undefined> {
    const { settings, signal } = request;
    if (request.automatic && !wanted(settings, request.languageId)) return undefined;
    const shape = shapeFor(request);
    if (shape === "none") return undefined;
    this.#completing += 1;
    try {
      return await this.#options.sessions.use(settings, signal, (session) => this.#complete(session, request, shape));
    } catch (error) {
      if (error instanceof Cancelled) return undefined;
      throw error;
    } finally {
      this.#completing -= 1;
    }
  }

  async #complete(session: Session, request: CompletionRequest, shape: Shape): Promise<Completion | undefined> {
    const { root, uri, path, before, after, signal } = request;
    const context = await session.context(root);
    if (context.needsRestoring) await abortable(context.restore(), signal);

    const place: Place = { uri, before, after, basis: `${session.resolved.path} ${context.loadedSegments.length}` };
    const known = this.#cache.get(place);
    if (known !== undefined) return known === "" ? undefined : { text: known, stats: cachedStats };

    const { tokens } = await session.text.completion({
      path,
      prefix: before,
      // Where the line ends at the cursor, what is missing is the rest of it with its end: so models were trained.
      suffix: after.startsWith("\n") ? after.slice(1) : after,
      prefixTokensMax: this.#window.prefixTokensMax,
      suffixTokensMax: this.#window.suffixTokensMax,
    });
    const generated = await this.#generate(session, context, request, shape, tokens);
    this.#window.measured(generated.promptTokensRead, generated.millis.prefill);
    if (generated.finish === "cancelled") return undefined;
    const text = postprocess({ text: generated.text, before, after, shape, cutShort: generated.finish === "length" });
    this.#cache.put(place, text);
    return text === "" ? undefined : { text, stats: statsOf(context, path, tokens, generated) };
  }

  async #generate(
    session: Session,
    context: RepositoryContext,
    request: CompletionRequest,
    shape: Shape,
    tokens: Uint32Array,
  ): Promise<Generated> {
    const { root, path, settings, signal } = request;
    const live = holds(path);
    const tail = await context.completionTails.acquire(context.attendsWithout(live), tokens, () =>
      context.newTail(live),
    );
    const job: Job = { kind: "completion", signal };
    const startedAt = performance.now();
    let text = "";
    let generated: Generated | undefined;
    try {
      generated = await generate({
        scheduler: session.scheduler,
        job,
        sequence: tail.sequence,
        tokens,
        tokensMax: settings.completions.tokensMax,
        sampling: greedy,
        stopIds: session.text.completionStopIds,
        bannedIds: session.text.bannedIds,
        stopStrings: shape === "line" ? [] : ["\n\n\n"],
        stream: session.text.decodeStream(),
        masses: false,
        onText: (more) => {
          text += more;
          const enough = shape === "line" ? text.includes("\n") : leavesBlock(request, text);
          return enough || performance.now() - startedAt > decodeMsMax ? "stop" : undefined;
        },
      });
    } finally {
      if (generated === undefined) context.completionTails.drop(tail);
      else context.completionTails.release(tail, joinTokens(tokens, generated.ids));
    }
    this.#options.onAttended(root, generated.attendedBlocks, generated.totalBlocks);
    return generated;
  }
}

/** Who asks by name gets a line even where typing would get nothing. */
function shapeFor({ before, after, automatic }: CompletionRequest): Shape {
  const shape = shapeAt(before, after);
  return shape === "none" && !automatic ? "line" : shape;
}

/** Whether segment and live text would show the model two states of the file. */
function holds(path: string): (segment: SegmentRecord) => boolean {
  return ({ files }) => files.includes(path);
}

/** Whether the finished lines of the text already go beyond what will be offered. */
function leavesBlock({ before, after }: CompletionRequest, text: string): boolean {
  const end = text.lastIndexOf("\n");
  if (end <= 0) return false;
  const finished = text.slice(0, end);
  const kept = postprocess({ text: finished, before, after, shape: "lines", cutShort: false });
  return kept.trimEnd() !== finished.trimEnd();
}

function wanted(settings: EngineSettings, languageId: string): boolean {
  const { enabled, languages } = settings.completions;
  return enabled && (languages[languageId] ?? languages["*"] ?? true);
}

function statsOf(context: RepositoryContext, path: string, tokens: Uint32Array, generated: Generated): CompletionStats {
  const attended = context.loadedSegments.filter((segment) => !holds(path)(segment));
  const { queue, prefill, decode } = generated.millis;
  return {
    contextTokens: attended.reduce((total, segment) => total + segment.tokens, 0),
    promptTokens: tokens.length,
    tokens: generated.ids.length,
    cached: false,
    millis: { queue: Math.round(queue), prefill: Math.round(prefill), decode: Math.round(decode) },
  };
}

const cachedStats: CompletionStats = {
  contextTokens: 0,
  promptTokens: 0,
  tokens: 0,
  cached: true,
  millis: { queue: 0, prefill: 0, decode: 0 },
};
