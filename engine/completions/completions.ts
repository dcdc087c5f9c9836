/**
 * Ghost text: what the model would write at the cursor, knowing the repository. While an offer is read, what comes after
 * it is begun, so that who accepts it sees the next at once; while the editor waits for a pause in the typing, what an
 * offer there begins with is read, and the offer begun.
 *
 * The live text of the file is in the tail. Blocks that hold the same lines as they were read are therefore hidden from
 * that tail, so that the model never sees an old state of them beside the new one. The tail is kept, so that typing on
 * costs what was typed.
 */

import { limits } from "../config";
import type { RepositoryContext } from "../contexts/repositoryContext";
import { noFocus } from "../contexts/selection";
import { Cancelled } from "../errors";
import { generate, type Attended, type Generated } from "../generation/generate";
import { prefillAll } from "../generation/prefill";
import type { SamplingOptions } from "../native/addon";
import type { CompletionTail } from "../prompts/completion";
import type { Tail } from "../contexts/tails";
import { completesLanguage, type CompletionStats, type EngineSettings, type Place as Pin } from "../protocol";
import { ChunkBudget } from "../scheduler/budget";
import type { Job } from "../scheduler/scheduler";
import type { Session } from "../sessions/session";
import type { Sessions } from "../sessions/sessions";
import { abortable } from "../util/abortable";
import { joinTokens } from "../util/joinTokens";
import { Ahead, lineBelow } from "./ahead";
import { HeldText, textBehind } from "./behind";
import { CompletionCache, samePlace, type Place } from "./cache";
import { liveLines } from "./live";
import { postprocess } from "./postprocess/index";
import { endBeforeRest } from "./postprocess/rest";
import { Reading } from "./reading";
import { Running } from "./running";
import { shapeAt, type Shape } from "./shape";
import { CompletionWindow } from "./window";

export interface CompletionsOptions {
  readonly sessions: Sessions;
  readonly onAttended: (root: string, attended: Attended) => void;
  /** Reads again what was lost of a repository to a damaged file. */
  readonly repair: (root: string, settings: EngineSettings, signal: AbortSignal) => Promise<void>;
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
  /** Files and folders of the repository that are attended to whatever the selection prefers. */
  readonly pins: readonly Pin[];
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

/** Offers beside the likeliest one are drawn, each from a seed of its own. */
const drawn: Omit<SamplingOptions, "seed"> = {
  temperature: 0.8,
  topK: 40,
  topP: 0.95,
  minP: 0.05,
  repetitionPenalty: 1,
};
const offersMax = 3;
/** Draws often repeat the likeliest offer; so many are made at most. */
const drawsMax = 5;

/** An offer that takes longer to read for and to write is offered as far as it got: with the pauses before it, and drawing, it is there within 1.8 s. */
const decodeMsMax = 1_300;

/** What is read before it is asked for is read in pieces: the next key keeps those that are done. */
const piece = { ms: 300, tokens: 32 };

export class Completions {
  readonly #options: CompletionsOptions;
  readonly #cache = new CompletionCache(limits.completionCacheEntriesMax);
  readonly #window = new CompletionWindow();
  readonly #held = new HeldText();
  readonly #ahead = new Ahead();
  #running: Running | undefined;
  #reading: Reading | undefined;
  /** Begun last for a place that was typed, in the pause before it is asked for. */
  #typed: Writing | undefined;
  /** Where a completion was prepared or asked for last. */
  #last: Place | undefined;
  #completing = 0;

  constructor(options: CompletionsOptions) {
    this.#options = options;
  }

  get completing(): number {
    return this.#completing;
  }

  /** The likeliest first; more than one only for who asked by name. None where there is nothing to offer, and when the request was cancelled. */
  async complete(request: CompletionRequest): Promise<readonly Completion[]> {
    const { settings, signal } = request;
    if (request.automatic && !wanted(settings, request.languageId)) return [];
    const shape = shapeFor(request);
    if (shape === "none") return [];
    this.#completing += 1;
    try {
      return await this.#options.sessions.use(settings, signal, async (session) => {
        const context = await session.context(request.root);
        try {
          return await this.#complete(session, context, request, shape);
        } catch (error) {
          if (!(await context.setAsideFrom(error))) throw error;
          // Ghost text does not wait for that; the next one comes from what is left, or from the whole again.
          this.#options.repair(request.root, settings, new AbortController().signal).catch(() => undefined);
          return [];
        }
      });
    } catch (error) {
      if (error instanceof Cancelled) return [];
      throw error;
    } finally {
      this.#completing -= 1;
    }
  }

  /**
   * Reads what a completion at this place begins with: somebody is about to ask for one. Where that was typed, it is begun as well: so the pause before
   * asking is not lost. Resolves when the reading is begun. Nothing is loaded for it, and it stops no completion that somebody waits for in another file.
   */
  async prepare(request: CompletionRequest): Promise<void> {
    const { root, before, after, settings } = request;
    if (!wanted(settings, request.languageId) || shapeAt(before, after) === "none") return;
    await this.#options.sessions.useLoaded(settings, async (session) => {
      const context = session.opened(root);
      if (context === undefined || context.needsRestoring) return;
      const place = placeOf(session, context, request);
      const prepared = this.#near(place);
      if (this.#cache.get(place) !== undefined) return;
      // What is being written may begin as was typed, which its next word tells.
      if (this.#running?.fits(place) === true && (await this.#running.follows(place))) return;
      if (this.#last !== prepared.place) return;
      const [running, last] = [this.#running, this.#reading];
      // In this file nobody waits any more: the text has changed, or the cursor has moved on.
      if (running?.isAwaited === true && running.place.uri !== place.uri) return;
      if (last !== undefined && samePlace(last.place, place)) return;
      this.#ahead.left();
      running?.stop();
      last?.stop();
      const reading = new Reading(place);
      this.#reading = reading;
      Promise.all([running?.over, last?.over])
        .then(() => this.#read(request, reading))
        .then(() => {
          if (prepared.isTyped && reading.isRead && this.#reading === reading)
            this.#typed = this.#begin(request, place);
        })
        // Whoever asks is told what is wrong.
        .catch(() => undefined)
        .finally(() => reading.end());
    });
  }

  /** Somebody is at `place` now. Gives whether it was typed there since the last time, rather than the cursor moved. */
  #near(place: Place): { readonly place: Place; readonly isTyped: boolean } {
    const last = this.#last;
    this.#last = place;
    const isTyped = last?.uri === place.uri && last.before + last.after !== place.before + place.after;
    return { place, isTyped };
  }

  async #complete(
    session: Session,
    context: RepositoryContext,
    request: CompletionRequest,
    shape: Shape,
  ): Promise<readonly Completion[]> {
    const { signal } = request;
    if (context.needsRestoring) await abortable(context.restore(), signal);
    const place = placeOf(session, context, request);
    this.#near(place);
    const accepted = this.#ahead.asked(place);
    if (!request.automatic) return this.#offers(session, context, request, shape);
    const offers = await this.#offer(session, request, shape, place);
    if (signal.aborted) return [];

    const begin = (next: Place): void => void this.#begin(request, next);
    const [first] = offers;
    const below = accepted && first === undefined ? lineBelow(place) : undefined;
    if (first !== undefined) this.#ahead.offered(place, first.text, begin);
    else if (below !== undefined) begin(below);
    return offers;
  }

  /** What typing asks for: the likeliest. */
  async #offer(
    session: Session,
    request: CompletionRequest,
    shape: Shape,
    place: Place,
  ): Promise<readonly Completion[]> {
    const { signal } = request;
    const known = await this.#known(session, place, signal);
    if (known !== undefined) return known;
    const { running, written } = this.#start(request, shape, place, false);
    // What is read for it already may be waiting behind others.
    session.scheduler.reconsider();
    // Whoever waits no longer is told at once; the offer goes on for a moment.
    await running.ended(place, signal);
    if (signal.aborted) return [];
    const completion = await written;
    return completion === undefined ? [] : [completion];
  }

  /** Begins what may be asked for next, with nobody waiting for it. */
  #begin(request: CompletionRequest, place: Place): Writing | undefined {
    const { before, after } = place;
    const shape = shapeAt(before, after);
    if (shape === "none" || this.#cache.get(place) !== undefined) return undefined;
    return this.#start({ ...request, before, after }, shape, place, true);
  }

  /** One offer is written at a time: that of the last place. */
  #start(request: CompletionRequest, shape: Shape, place: Place, ahead: boolean): Writing {
    const [last, reading] = [this.#running, this.#reading];
    last?.stop();
    const running = new Running(place, { ahead });
    this.#running = running;
    this.#reading = undefined;
    const isRead = reading !== undefined && samePlace(reading.place, place) && (!ahead || reading.isRead);
    if (isRead) reading.awaited(running.signal);
    else reading?.stop();
    const startedAt = performance.now();
    // They give back the tail that this one goes on with.
    const written = Promise.all([last?.over, reading?.over])
      .then(() => {
        const read = isRead ? { tokens: reading.tokens, waitedMs: performance.now() - startedAt } : nothingRead;
        return this.#write(request, shape, running, read);
      })
      .finally(() => running.end());
    written.catch(() => undefined);
    return { running, written };
  }

  /** Holds the model itself, as nobody waits for it. */
  async #read(request: CompletionRequest, reading: Reading): Promise<void> {
    const { root, settings } = request;
    await this.#options.sessions.use(settings, reading.signal, async (session) => {
      const context = await session.context(root);
      if (placeOf(session, context, request).basis !== reading.place.basis) return;
      const { scheduler } = session;
      const prompt = await this.#prompt(session, request);
      const tail = await this.#tail(context, request, prompt);
      const budget = new ChunkBudget(piece.ms, piece.tokens);
      try {
        const { kept } = await scheduler.run(reading, () => tail.sequence.setTokens(prompt.tokens));
        reading.tokens = prompt.tokens.length - kept;
        const seam = { kept, at: prompt.stableTokens };
        if (reading.tokens > 0) await prefillAll(scheduler, reading, tail.sequence, { budget, seam });
        reading.isRead = true;
        // The first piece is not timed: what waited before it is not known.
        const { tokensPerSecond } = budget;
        if (tokensPerSecond > 0) this.#window.measured(reading.tokens, (1_000 * reading.tokens) / tokensPerSecond);
      } catch (error) {
        if (!(error instanceof Cancelled)) {
          context.completionTails.drop(tail);
          throw error;
        }
      }
      context.completionTails.release(tail, prompt.tokens);
    });
  }

  /** What was offered here before, or is being offered just now; none for a place where nothing was to be offered. */
  async #known(session: Session, place: Place, signal: AbortSignal): Promise<readonly Completion[] | undefined> {
    const [running, typed] = [this.#running, this.#typed];
    const known = this.#cached(place);
    if (known !== undefined || running?.fits(place) !== true) return known;
    const ended = running.ended(place, signal);
    // One that was begun ahead may be waiting behind others.
    session.scheduler.reconsider();
    if (!(await ended)) return undefined;
    // What was begun in the pause before this very request is a part of answering it.
    const completion = typed?.running === running && samePlace(running.place, place) ? await typed.written : undefined;
    return completion === undefined ? this.#cached(place) : [completion];
  }

  #cached(place: Place): readonly Completion[] | undefined {
    const text = this.#cache.get(place);
    if (text === undefined) return undefined;
    return text === "" ? [] : [{ text, stats: cachedStats }];
  }

  /** Writes one offer, and keeps it. Holds the model itself, for it may outlive the request. */
  async #write(
    request: CompletionRequest,
    shape: Shape,
    running: Running,
    read: Read,
  ): Promise<Completion | undefined> {
    const { root, settings } = request;
    const { place } = running;
    return this.#options.sessions.use(settings, running.signal, async (session) => {
      const context = await session.context(root);
      // What nobody asked for yet is of no use to who asks of another model or context.
      if (running.ahead && placeOf(session, context, request).basis !== place.basis) return undefined;
      const prompt = await this.#prompt(session, request);
      const generated = await this.#generate(session, context, request, shape, {
        prompt,
        job: running,
        sampling: greedy,
        awaitedSinceMs: () => running.awaitedSinceMs,
        onText: (text) => running.wrote(text),
      });
      if (!running.ahead) this.#window.measured(generated.promptTokensRead, generated.millis.prefill);
      if (generated.finish === "cancelled") return undefined;
      const text = offerOf(generated, request, shape);
      this.#cache.put(place, text);
      if (text === "") return undefined;
      const stats = statsOf(session, context, prompt, generated, read);
      return { text, stats: running.ahead ? waitedFor(stats, performance.now() - running.awaitedSinceMs) : stats };
    });
  }

  /** Several different offers from one prompt, whose KV is computed once. */
  async #offers(
    session: Session,
    context: RepositoryContext,
    request: CompletionRequest,
    shape: Shape,
  ): Promise<readonly Completion[]> {
    for (const other of [this.#running, this.#reading]) {
      other?.stop();
      await other?.over;
    }
    const job: Job = { kind: "completion", signal: request.signal };
    const prompt = await this.#prompt(session, request);
    const offers = new Map<string, Completion>();
    for (let draw = 0; draw < drawsMax && offers.size < offersMax; draw += 1) {
      const sampling = draw === 0 ? greedy : { ...drawn, seed: draw };
      const generated = await this.#generate(session, context, request, shape, { prompt, job, sampling });
      if (generated.finish === "cancelled") return [];
      const text = offerOf(generated, request, shape);
      const stats = statsOf(session, context, prompt, generated, nothingRead);
      if (text !== "" && !offers.has(text)) offers.set(text, { text, stats });
    }
    return [...offers.values()];
  }

  async #prompt(session: Session, { uri, path, before, after }: CompletionRequest): Promise<CompletionTail> {
    const order = session.text.completionOrder;
    const behind =
      order === "suffix-first"
        ? this.#held.shown(uri, after, performance.now())
        : { text: textBehind(after, order), linesSkipped: 0 };
    const prompt = await session.text.completion({
      path,
      prefix: before,
      suffix: behind.text,
      prefixTokensMax: this.#window.prefixTokensMax,
      suffixTokensMax: this.#window.suffixTokensMax(order),
    });
    return { ...prompt, linesAfter: prompt.linesAfter + behind.linesSkipped };
  }

  /** A tail for this prompt, to be given back: lines of the file that the prompt holds are hidden from it as they were read. */
  #tail(context: RepositoryContext, request: CompletionRequest, prompt: CompletionTail): Promise<Tail> {
    const hidden = liveLines(context.loadedSegments, { ...request, ...prompt });
    const focus = { ...noFocus, pins: request.pins, hidden };
    return context.tail(context.completionTails, prompt.tokens, focus);
  }

  async #generate(
    session: Session,
    context: RepositoryContext,
    request: CompletionRequest,
    shape: Shape,
    { prompt, job, sampling, awaitedSinceMs, onText }: Draft,
  ): Promise<Generated> {
    const { root, settings } = request;
    const { tokens } = prompt;
    const tail = await this.#tail(context, request, prompt);
    const startedAt = performance.now();
    let text = "";
    let isLate = false;
    let generated: Generated | undefined;
    try {
      generated = await generate({
        scheduler: session.scheduler,
        job,
        sequence: tail.sequence,
        tokens,
        tokensMax: settings.completions.tokensMax,
        sampling,
        stopIds: session.text.completionStopIds,
        bannedIds: session.text.bannedIds,
        stopStrings: shape === "line" ? [] : ["\n\n\n"],
        stream: session.text.decodeStream(),
        masses: false,
        onText: (more) => {
          text += more;
          onText?.(text);
          const enough = shape === "line" ? endsLine(request, text) : leavesBlock(request, text);
          const waited = performance.now() - (awaitedSinceMs?.() ?? startedAt);
          isLate = !enough && waited > decodeMsMax;
          return enough || isLate ? "stop" : undefined;
        },
      });
    } finally {
      if (generated === undefined) context.completionTails.drop(tail);
      else context.completionTails.release(tail, joinTokens(tokens, generated.ids));
    }
    this.#options.onAttended(root, generated.attended);
    // Out of time is as out of tokens: it was not the model that ended.
    return isLate ? { ...generated, finish: "length" } : generated;
  }
}

/** What was read of a prompt before the completion was asked for, and how long whoever asked still waited for that. */
interface Read {
  readonly tokens: number;
  readonly waitedMs: number;
}

const nothingRead: Read = { tokens: 0, waitedMs: 0 };

interface Writing {
  readonly running: Running;
  readonly written: Promise<Completion | undefined>;
}

interface Draft {
  readonly prompt: CompletionTail;
  readonly job: Job;
  readonly sampling: SamplingOptions;
  /** When somebody first waited for it; from the beginning when absent. */
  readonly awaitedSinceMs?: () => number;
  /** Told all text so far. */
  readonly onText?: (text: string) => void;
}

function placeOf(session: Session, context: RepositoryContext, request: CompletionRequest): Place {
  const { uri, before, after, pins } = request;
  return { uri, before, after, basis: JSON.stringify([session.resolved.path, context.attends, pins]) };
}

function offerOf(generated: Generated, { before, after }: CompletionRequest, shape: Shape): string {
  return postprocess({ text: generated.text, before, after, shape, cutShort: generated.finish === "length" });
}

/** Who asks by name gets a line even where typing would get nothing. */
function shapeFor({ before, after, automatic }: CompletionRequest): Shape {
  const shape = shapeAt(before, after);
  return shape === "none" && !automatic ? "line" : shape;
}

/** Whether the line is written, as far as it is missing. */
function endsLine({ before, after }: CompletionRequest, text: string): boolean {
  return text.includes("\n") || (endBeforeRest(text, before, after) ?? text.length) < text.length;
}

/** Whether the finished lines of the text already go beyond what will be offered. */
function leavesBlock({ before, after }: CompletionRequest, text: string): boolean {
  const end = text.lastIndexOf("\n");
  if (end <= 0) return false;
  const finished = text.slice(0, end);
  const kept = postprocess({ text: finished, before, after, shape: "lines", cutShort: false });
  return kept.trim() !== finished.trim();
}

function wanted(settings: EngineSettings, languageId: string): boolean {
  const { enabled, automatic } = settings.completions;
  return enabled && automatic && completesLanguage(settings.completions, languageId);
}

function statsOf(
  session: Session,
  context: RepositoryContext,
  prompt: CompletionTail,
  generated: Generated,
  read: Read,
): CompletionStats {
  const { attended, promptTokensRead } = generated;
  const { queue, prefill, decode } = generated.millis;
  return {
    contextTokens: context.loadedSegments.reduce((total, segment) => total + segment.tokens, 0),
    attendedTokens: attended.attendedBlocks * session.info.blockTokens,
    blocksRead: attended.blocksRead,
    blocksFetched: attended.blocksFetched,
    promptTokens: prompt.tokens.length,
    promptTokensRead: promptTokensRead + read.tokens,
    tokens: generated.ids.length,
    cached: false,
    // Of what was read before, the part that somebody waited for.
    millis: {
      queue: Math.round(queue),
      prefill: Math.round(prefill + read.waitedMs),
      decode: Math.round(decode),
    },
  };
}

/** Of the times of what was begun with nobody waiting, the last `ms`. */
function waitedFor(stats: CompletionStats, ms: number): CompletionStats {
  const within = (left: number, part: number): number => Math.round(Math.max(0, Math.min(left, part)));
  const decode = within(ms, stats.millis.decode);
  const prefill = within(ms - decode, stats.millis.prefill);
  return { ...stats, millis: { queue: within(ms - decode - prefill, stats.millis.queue), prefill, decode } };
}

const cachedStats: CompletionStats = {
  contextTokens: 0,
  attendedTokens: 0,
  blocksRead: 0,
  promptTokens: 0,
  promptTokensRead: 0,
  tokens: 0,
  cached: true,
  millis: { queue: 0, prefill: 0, decode: 0 },
};
