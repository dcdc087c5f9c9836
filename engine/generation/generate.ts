/**
 * Tokens in, streamed text out: sync the prefix, prefill what is new, decode in short commands, stop.
 *
 * Cancelling is a result here: what was said until then is returned.
 */

import { Cancelled } from "../errors";
import type { BlockMass, DecodeResult, NativeGrammar, NativeSequence, SamplingOptions } from "../native/addon";
import type { SelectionPolicy } from "../protocol";
import { decodeSteps } from "../scheduler/budget";
import type { Job, Scheduler } from "../scheduler/scheduler";
import type { TextStream } from "../tokenizer/tokenizer";
import { MassSum } from "./masses";
import { prefillAll, type Moved } from "./prefill";
import { StopMatcher } from "./stop";

export interface GenerateOptions {
  readonly scheduler: Scheduler;
  readonly job: Job;
  /** Nobody else may use it meanwhile. */
  readonly sequence: NativeSequence;
  /** All of the prompt; KV of what the sequence already holds of it is kept. */
  readonly tokens: Uint32Array;
  readonly tokensMax: number;
  readonly sampling: SamplingOptions;
  readonly stopIds: readonly number[];
  readonly bannedIds: readonly number[];
  readonly stopStrings: readonly string[];
  readonly stream: TextStream;
  readonly masses: boolean;
  /** What the answer follows. */
  readonly grammar?: NativeGrammar | undefined;
  /** Called with text that is final, never empty. Returning "stop" ends the generation. */
  readonly onText: (text: string) => "stop" | void;
}

/** What of the context an answer attended to. */
export interface Attended {
  readonly attendedBlocks: number;
  readonly totalBlocks: number;
  readonly policy: SelectionPolicy;
  readonly blocksRead: number;
  readonly blocksFetched: number;
}

export const nothingAttended: Attended = {
  attendedBlocks: 0,
  totalBlocks: 0,
  policy: "full",
  blocksRead: 0,
  blocksFetched: 0,
};

export interface Generated {
  readonly text: string;
  readonly finish: "stop" | "length" | "cancelled";
  /** Drawn ids; what the sequence holds behind the prompt is these without the last, at the least. */
  readonly ids: readonly number[];
  /** Prompt tokens whose KV had to be computed. */
  readonly promptTokensRead: number;
  readonly masses: readonly BlockMass[];
  readonly attended: Attended;
  readonly millis: {
    readonly queue: number;
    readonly prefill: number;
    readonly firstToken: number;
    readonly decode: number;
  };
}

export async function generate(options: GenerateOptions): Promise<Generated> {
  const run = new Run(options);
  try {
    await run.prefill();
    await run.decode();
  } catch (error) {
    if (!(error instanceof Cancelled)) throw error;
    run.cancelled();
  }
  return run.result();
}

class Run {
  readonly #options: GenerateOptions;
  readonly #stops: StopMatcher;
  readonly #ids: number[] = [];
  readonly #masses = new MassSum();
  readonly #startedAt = performance.now();
  #text = "";
  #finish: Generated["finish"] = "length";
  #promptTokensRead = 0;
  #attendedBlocks = 0;
  #totalBlocks = 0;
  #blocksRead = 0;
  #blocksFetched = 0;
  #syncedAt = 0;
  #prefilledAt = 0;
  #firstTokenAt = 0;
  #endedAt = 0;

  constructor(options: GenerateOptions) {
    this.#options = options;
    this.#stops = new StopMatcher(options.stopStrings);
  }

  async prefill(): Promise<void> {
    const { scheduler, job, sequence, tokens } = this.#options;
    const { kept } = await scheduler.run(job, () => sequence.setTokens(tokens));
    this.#syncedAt = performance.now();
    this.#promptTokensRead = tokens.length - kept;
    if (kept === tokens.length) {
      this.#prefilledAt = this.#syncedAt;
      return;
    }
    this.#countMoved(await prefillAll(scheduler, job, sequence));
    this.#prefilledAt = performance.now();
  }

  async decode(): Promise<void> {
    const { scheduler, job, sequence, tokens, tokensMax, sampling, stopIds, bannedIds, masses } = this.#options;
    const { grammar: rules } = this.#options;
    const grammar = rules === undefined ? {} : { grammar: { rules, from: tokens.length } };
    for (let command = 0; this.#ids.length < tokensMax; command++) {
      const steps = Math.min(decodeSteps(command), tokensMax - this.#ids.length);
      const options = { steps, sampling, stopIds, bannedIds, masses, drafts: !masses, ...grammar };
      const result = await scheduler.decode(job, { sequence, options });
      if (this.#firstTokenAt === 0 && result.steps.length > 0) this.#firstTokenAt = performance.now();
      this.#count(result);
      const ended = this.#show(result);
      this.#endedAt = performance.now();
      if (ended || result.stopped) this.#finish = "stop";
      if (ended) return;
      // Native code that can append no more says so with an empty result.
      if (result.stopped || (result.steps.length === 0 && !result.interrupted)) break;
    }
    this.#flush();
  }

  cancelled(): void {
    this.#finish = "cancelled";
    this.#endedAt = performance.now();
    this.#flush();
  }

  result(): Generated {
    const since = (later: number, earlier: number): number =>
      later > 0 && earlier > 0 ? Math.max(0, later - earlier) : 0;
    return {
      text: this.#text,
      finish: this.#finish,
      ids: this.#ids,
      promptTokensRead: this.#promptTokensRead,
      masses: this.#masses.average(),
      attended: {
        attendedBlocks: this.#attendedBlocks,
        totalBlocks: this.#totalBlocks,
        policy: this.#attendedBlocks < this.#totalBlocks ? "nosa" : "full",
        blocksRead: this.#blocksRead,
        blocksFetched: this.#blocksFetched,
      },
      millis: {
        queue: since(this.#syncedAt, this.#startedAt),
        prefill: since(this.#prefilledAt, this.#syncedAt),
        firstToken: since(this.#firstTokenAt, this.#startedAt),
        decode: since(this.#endedAt, this.#prefilledAt),
      },
    };
  }

  #count(result: DecodeResult): void {
    this.#masses.add(result.masses, result.steps.length);
    this.#countMoved(result);
    if (result.totalBlocks > 0) {
      this.#attendedBlocks = result.attendedBlocks;
      this.#totalBlocks = result.totalBlocks;
    }
  }

  #countMoved({ blocksRead, blocksFetched }: Moved): void {
    this.#blocksRead += blocksRead;
    this.#blocksFetched += blocksFetched;
  }

  /** Whether a stop string, or the listener, ended the generation. */
  #show(result: DecodeResult): boolean {
    // The id that stopped the generation says nothing.
    const spoken = result.stopped ? result.steps.slice(0, -1) : result.steps;
    for (const { token } of spoken) {
      this.#ids.push(token);
      const { text, stopped } = this.#stops.push(this.#options.stream.push(token));
      const wanted = this.#emit(text);
      if (stopped || !wanted) return true;
    }
    return false;
  }

  #emit(text: string): boolean {
    if (text === "") return true;
    this.#text += text;
    return this.#options.onText(text) !== "stop";
  }

  #flush(): void {
    this.#emit(this.#stops.push(this.#options.stream.end()).text + this.#stops.end());
  }
}
