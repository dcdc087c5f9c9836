/**
 * A model for tests of the engine with no native code: it answers by copying out of what it attends to.
 *
 * Tokens are bytes (ids 3 to 258) and three marks. The text between `cueStart` and `cueEnd` in the tail is looked for
 * in the attended sequences; what follows it there, up to the end of the line, is the answer. So an answer is right
 * only if the right segments were attended to, whole and in the right order of bytes. Work takes time as told, parks
 * when interrupted, and everything that was computed is counted.
 */

import * as fs from "node:fs";
import type {
  BlockMass,
  BlockRange,
  DecodeOptions,
  DecodeResult,
  DecodeStep,
  DecodeTask,
  DecodedTask,
  MemoryUse,
  ModelInfo,
  NativeErrorCode,
  NativeGrammar,
  NativeModel,
  NativeSequence,
  PrefillResult,
  SelectionOptions,
  SequenceOptions,
} from "../../engine/native/addon";

export const stopId = 0;
export const cueStart = 1;
export const cueEnd = 2;
const firstByte = 3;
const newline = 10 + firstByte;

export const copyModelInfo: ModelInfo = {
  architecture: "copy",
  name: "Copy",
  vocabSize: 256 + firstByte,
  layers: 1,
  embeddingLength: 1,
  heads: 1,
  kvHeads: 1,
  headDim: 1,
  contextLength: 16_384,
  weightBytes: 0,
  kvBytesPerToken: 4,
  blockTokens: 64,
  stepSequences: 1,
  device: "Test",
  selection: "trainingFree",
  completionOrder: "prefix-first",
  sideCarBytesPerToken: 1,
  workBytes: 0,
  fingerprint: "copy-1",
};

export function bytesToTokens(text: string): Uint32Array {
  return Uint32Array.from(Buffer.from(text, "utf8"), (byte) => byte + firstByte);
}

export function tokenToByte(id: number): number | undefined {
  return id >= firstByte ? id - firstByte : undefined;
}

/** Every block, as long as nobody asks for less. */
const selectAll: SelectionOptions = {
  policy: "full",
  totalBlocks: 64,
  queryBlocks: 16,
  sinkBlocks: 1,
  windowBlocks: 17,
  masked: [],
  pinned: [],
};

/** As a rejection of the native addon looks. */
export class NativeFailure extends Error {
  readonly code: NativeErrorCode;

  constructor(code: NativeErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

/** What the test decides, and what it may look at. */
export class Workshop {
  /** Of one token of prefill or decode. */
  millisPerToken = 0;
  /** A file that was damaged after it was loaded: whoever attends to one of its blocks finds out. */
  damagedFile = "";
  /** What the last answer was asked with, as text. */
  lastPrompt = "";
  /** Saving fails with this. */
  saveFailure: NativeErrorCode | undefined;
  /** Called with each file that `save` or `checkpoint` has written, while the command still runs. */
  onWritten: (file: string) => Promise<void> = async () => undefined;
  tokensComputed = 0;
  tokensDecoded = 0;
  /** Blocks that were attended to for the first time since their sequence was loaded. */
  blocksRead = 0;
  loads = 0;
  prefetches = 0;
  saves = 0;
  checkpoints = 0;
  interrupts = 0;
  /** Commands that ran while another did: the scheduler must never let that happen. */
  overlaps = 0;
  sequencesAlive = 0;
  busy = false;
  disposed = false;
  #parkWanted = false;

  interrupt(): void {
    if (!this.busy) return;
    this.interrupts += 1;
    this.#parkWanted = true;
  }

  async command<T>(work: () => Promise<T>): Promise<T> {
    if (this.disposed) throw new NativeFailure("disposed", "The model was closed.");
    if (this.busy) this.overlaps += 1;
    this.busy = true;
    this.#parkWanted = false;
    try {
      // No command is done in the same turn it was sent in.
      await new Promise((resolve) => setImmediate(resolve));
      return await work();
    } finally {
      this.busy = false;
    }
  }

  /** Does up to `count` tokens of work; resolves with how many were done before it was asked to park. */
  async work(count: number): Promise<number> {
    for (let done = 0; done < count;) {
      if (this.#parkWanted) return done;
      const slice = this.millisPerToken === 0 ? count : Math.max(1, Math.floor(5 / this.millisPerToken));
      const now = Math.min(slice, count - done);
      if (this.millisPerToken > 0) await new Promise((resolve) => setTimeout(resolve, now * this.millisPerToken));
      done += now;
    }
    return count;
  }
}

export class CopyModel implements NativeModel {
  readonly info: ModelInfo;
  readonly workshop: Workshop;

  constructor(workshop = new Workshop(), info: Partial<ModelInfo> = {}) {
    this.workshop = workshop;
    this.info = { ...copyModelInfo, ...info };
  }

  setTokenBytes(): void {
    // Nothing here is held to a grammar.
  }

  createGrammar(): NativeGrammar {
    throw new NativeFailure("unsupported", "The copying model follows no grammar.");
  }

  createSequence(options: SequenceOptions): Promise<NativeSequence> {
    return this.workshop.command(async () => new CopySequence(this, options));
  }

  /** One after the other, where the real one takes a step of each in turn: nobody sees the difference. */
  decodeTogether({ tasks }: { readonly tasks: readonly DecodeTask[] }): Promise<readonly DecodedTask[]> {
    return this.workshop.command(async () => {
      const results: DecodedTask[] = [];
      for (const { sequence, options } of tasks) {
        const decoded = (sequence as CopySequence).decodeNow(options);
        results.push(
          await decoded.then(
            (result): DecodedTask => ({ kind: "decoded", result }),
            (error: unknown): DecodedTask => ({ kind: "failed", error: error as Error }),
          ),
        );
      }
      return results;
    });
  }

  interrupt(): void {
    this.workshop.interrupt();
  }

  memory(): Promise<MemoryUse> {
    return this.workshop.command(async () => ({
      kvBytes: 0,
      kvBlocks: 0,
      sequences: this.workshop.sequencesAlive,
      residentBytes: 0,
      sideCarBytes: 0,
      memoryBytesMax: 0,
      diskBytesRead: this.workshop.blocksRead * this.info.blockTokens * this.info.kvBytesPerToken,
      diskBytesWritten: 0,
      blocksRead: this.workshop.blocksRead,
      blocksPrefetched: 0,
      prefetchedUsed: 0,
      blocksSpilled: 0,
      blocksWrittenBehind: 0,
      stepSequences: this.info.stepSequences,
      device: this.info.device,
      gpuProblem: "",
      deviceBytes: 0,
    }));
  }

  async limitMemory(): Promise<void> {}

  async dispose(): Promise<void> {
    this.workshop.disposed = true;
  }
}

class CopySequence implements NativeSequence {
  readonly #model: CopyModel;
  readonly #options: SequenceOptions;
  #tokens: Uint32Array = new Uint32Array();
  #computed = 0;
  #selection = selectAll;
  /** Blocks that are still in the file this was loaded from. */
  #onDisk = new Set<number>();
  #file = "";
  #grown = true;
  #alive = true;

  constructor(model: CopyModel, options: SequenceOptions) {
    this.#model = model;
    this.#options = options;
    model.workshop.sequencesAlive += 1;
    for (const attended of options.attends) (attended as CopySequence).#grown = false;
  }

  select(options: SelectionOptions): Promise<void> {
    return this.#command(async () => {
      const { totalBlocks, queryBlocks, sinkBlocks, windowBlocks, masked, pinned } = options;
      const outside = [...masked, ...pinned].some(({ sequence, from, to }) => {
        const attended = this.#options.attends[sequence] as CopySequence | undefined;
        return attended === undefined || from < 0 || from > to || to > attended.#blocks;
      });
      const hidden = new Set(masked.flatMap((range) => places(range)));
      const nPinned = new Set(pinned.flatMap((range) => places(range)).filter((place) => !hidden.has(place))).size;
      const least = sinkBlocks + windowBlocks + Math.max(queryBlocks - 1, 0) + nPinned;
      if (outside || windowBlocks < 1 || (options.policy !== "full" && least > totalBlocks))
        throw new NativeFailure("invalidArgument", "The selection makes no sense.");
      this.#selection = options;
    });
  }

  setTokens(tokens: Uint32Array): Promise<{ kept: number }> {
    return this.#command(async () => {
      let kept = 0;
      while (kept < this.#computed && kept < tokens.length && this.#tokens[kept] === tokens[kept]) kept++;
      if (!this.#grown && kept < this.#computed) throw new NativeFailure("invalidArgument", "It is attended to.");
      this.#tokens = tokens.slice();
      this.#computed = kept;
      return { kept };
    });
  }

  tokens(): Promise<Uint32Array> {
    return this.#command(async () => this.#tokens.slice());
  }

  prefetch(): Promise<{ readonly blocks: number; readonly interrupted: boolean }> {
    return this.#command(async () => {
      this.#model.workshop.prefetches += 1;
      return { blocks: 0, interrupted: false };
    });
  }

  prefill({ tokensMax }: { tokensMax: number }): Promise<PrefillResult> {
    return this.#command(() => this.#prefill(tokensMax));
  }

  decode(options: DecodeOptions): Promise<DecodeResult> {
    return this.#command(() => this.decodeNow(options));
  }

  /** Within a command. */
  async decodeNow(options: DecodeOptions): Promise<DecodeResult> {
    const waiting = await this.#prefill(Infinity);
    const { chosen, totalBlocks } = this.#choose();
    const blocksRead = this.#read(chosen);
    this.#model.workshop.lastPrompt = textOf(this.#tokens);
    const selections = options.selections === true ? [chosen.length === totalBlocks ? [] : chosen] : [];
    const steps: DecodeStep[] = [];
    let stopped = false;
    let interrupted = !waiting.done;
    while (!stopped && !interrupted && steps.length < options.steps) {
      if ((await this.#model.workshop.work(1)) === 0) {
        interrupted = true;
        break;
      }
      const token = this.#next();
      stopped = options.stopIds.includes(token);
      steps.push({ token, logprob: 0, top: [], selections });
      if (stopped) break;
      this.#model.workshop.tokensDecoded += 1;
      this.#tokens = Uint32Array.of(...this.#tokens, token);
      this.#computed += 1;
    }
    const masses = options.masses === true && steps.length > 0 ? this.#masses() : [];
    const attendedBlocks = chosen.length;
    return {
      steps,
      stopped,
      interrupted,
      masses,
      attendedBlocks,
      totalBlocks,
      blocksRead,
      blocksFetched: 0,
      drafted: 0,
      draftedRight: 0,
      shared: 0,
    };
  }

  score(): Promise<{ logprobs: Float32Array; interrupted: boolean }> {
    return this.#command(async () => ({ logprobs: new Float32Array(), interrupted: false }));
  }

  fork(): Promise<NativeSequence> {
    return this.#command(async () => {
      const copy = new CopySequence(this.#model, this.#options);
      copy.#tokens = this.#tokens;
      copy.#computed = this.#computed;
      copy.#selection = this.#selection;
      return copy;
    });
  }

  save({ path, key }: { path: string; key: string }): Promise<{ bytes: number }> {
    return this.#command(async () => {
      const { workshop } = this.#model;
      if (workshop.saveFailure !== undefined) throw new NativeFailure(workshop.saveFailure, "It could not be saved.");
      workshop.saves += 1;
      const text = JSON.stringify({ key, tokens: [...this.#tokens.subarray(0, this.#computed)] });
      fs.writeFileSync(path, text, { mode: 0o600 });
      fs.rmSync(`${path}.part`, { force: true });
      await workshop.onWritten(path);
      return { bytes: text.length };
    });
  }

  checkpoint({ path, key }: { path: string; key: string }): Promise<{ tokens: number }> {
    return this.#command(async () => {
      const { workshop, info } = this.#model;
      if (workshop.saveFailure !== undefined) throw new NativeFailure(workshop.saveFailure, "It could not be saved.");
      workshop.checkpoints += 1;
      const tokens = this.#computed - (this.#computed % info.blockTokens);
      fs.writeFileSync(`${path}.part`, JSON.stringify({ key, tokens: [...this.#tokens.subarray(0, tokens)] }));
      await workshop.onWritten(`${path}.part`);
      return { tokens };
    });
  }

  resume({ path, key }: { path: string; key: string }): Promise<{ tokens: number }> {
    return this.#command(async () => {
      if (!fs.existsSync(`${path}.part`)) throw new NativeFailure("notFound", "There is no part of it.");
      return { tokens: this.#take(`${path}.part`, key) };
    });
  }

  load({ path, key }: { path: string; key: string }): Promise<{ tokens: number }> {
    return this.#command(async () => {
      this.#model.workshop.loads += 1;
      this.#take(path, key);
      this.#file = path;
      this.#onDisk = new Set(Array.from({ length: this.#blocks }, (_, block) => block));
      return { tokens: this.#computed };
    });
  }

  dispose(): Promise<void> {
    return this.#command(async () => {
      if (this.#alive) this.#model.workshop.sequencesAlive -= 1;
      this.#alive = false;
    });
  }

  #take(path: string, key: string): number {
    const saved = parse(fs.readFileSync(path, "utf8"));
    if (saved.key !== key) throw new NativeFailure("invalidArgument", "It was saved under another key.");
    this.#tokens = Uint32Array.from(saved.tokens);
    this.#computed = this.#tokens.length;
    return this.#computed;
  }

  get #blocks(): number {
    return Math.ceil(this.#computed / this.#model.info.blockTokens);
  }

  #command<T>(work: () => Promise<T>): Promise<T> {
    return this.#model.workshop.command(work);
  }

  async #prefill(tokensMax: number): Promise<PrefillResult> {
    const done = await this.#model.workshop.work(Math.min(tokensMax, this.#tokens.length - this.#computed));
    if (done > 0 && !this.#grown) throw new NativeFailure("invalidArgument", "It is attended to and must not grow.");
    const interrupted = done < Math.min(tokensMax, this.#tokens.length - this.#computed);
    this.#computed += done;
    this.#model.workshop.tokensComputed += done;
    return {
      computed: this.#computed,
      done: this.#computed === this.#tokens.length,
      interrupted,
      blocksRead: 0,
      blocksFetched: 0,
    };
  }

  /** All blocks, those of the attended sequences before the own ones, and which of them the queries see now. */
  #choose(): { chosen: number[]; totalBlocks: number } {
    const { policy, totalBlocks: most, sinkBlocks, windowBlocks, masked, pinned } = this.#selection;
    const counts = [...this.#options.attends.map((each) => (each as CopySequence).#blocks), this.#blocks];
    const all = counts.flatMap((count, sequence) => places({ sequence, from: 0, to: count }));
    const totalBlocks = all.length;
    const hidden = new Set(masked.flatMap((range) => places(range)));
    const open = all.map((place, index) => ({ place, index })).filter(({ place }) => !hidden.has(place));
    if (policy === "full" || open.length <= most) return { chosen: open.map(({ index }) => index), totalBlocks };
    const found = this.#find();
    const wanted = new Set(pinned.flatMap((range) => places(range)));
    if (found !== undefined) {
      const end = found.at + found.length;
      const from = Math.floor(found.at / this.#model.info.blockTokens);
      const to = Math.floor(Math.max(found.at, end - 1) / this.#model.info.blockTokens) + 1;
      for (const place of places({ sequence: found.sequence, from, to })) wanted.add(place);
    }
    const rank = ({ place, index }: { place: string; index: number }): number => {
      if (index < sinkBlocks || index >= totalBlocks - windowBlocks) return 0;
      return wanted.has(place) ? 1 : 2;
    };
    const ranked = open.sort((a, b) => rank(a) - rank(b) || b.index - a.index).slice(0, most);
    return { chosen: ranked.map(({ index }) => index).sort((a, b) => a - b), totalBlocks };
  }

  /** Counts the blocks that are attended to for the first time since they were loaded. */
  #read(chosen: readonly number[]): number {
    let first = 0;
    let count = 0;
    for (const each of this.#options.attends as readonly CopySequence[]) {
      for (const index of chosen) {
        if (!each.#onDisk.has(index - first)) continue;
        if (each.#file === this.#model.workshop.damagedFile)
          throw new NativeFailure("corrupt", `A block of ${each.#file} is not what was written there.`);
        each.#onDisk.delete(index - first);
        count += 1;
      }
      first += each.#blocks;
    }
    this.#model.workshop.blocksRead += count;
    return count;
  }

  #next(): number {
    const found = this.#find();
    if (found === undefined) return this.#tokens.at(-1) === cueEnd ? "?".charCodeAt(0) + firstByte : stopId;
    const end = this.#tokens.lastIndexOf(cueEnd);
    const token = found.attended[found.at + (this.#tokens.length - end - 1)];
    return token === undefined || token === newline ? stopId : token;
  }

  /** Where the cue ends in what is attended to. */
  #find(): { sequence: number; attended: Uint32Array; at: number; length: number } | undefined {
    const cue = this.#tokens.slice(this.#tokens.lastIndexOf(cueStart) + 1, this.#tokens.lastIndexOf(cueEnd));
    if (cue.length === 0) return undefined;
    for (const [sequence, each] of this.#options.attends.entries()) {
      const attended = (each as CopySequence).#tokens;
      for (let at = 0; at + cue.length <= attended.length; at++) {
        if (this.#hides(sequence, at, at + cue.length)) continue;
        if (cue.every((token, index) => attended[at + index] === token)) {
          const start = at + cue.length;
          const newlineAt = attended.indexOf(newline, start);
          return { sequence, attended, at: start, length: (newlineAt < 0 ? attended.length : newlineAt) - start };
        }
      }
    }
    return undefined;
  }

  /** Whether some of these tokens of an attended sequence are masked. */
  #hides(sequence: number, from: number, to: number): boolean {
    const { blockTokens } = this.#model.info;
    return this.#selection.masked.some(
      (range) => range.sequence === sequence && range.from * blockTokens < to && from < range.to * blockTokens,
    );
  }

  #masses(): BlockMass[] {
    const found = this.#find();
    const { blockTokens } = this.#model.info;
    return this.#options.attends
      .flatMap((each, sequence) =>
        Array.from({ length: (each as CopySequence).#blocks }, (_, block) => {
          const here = found?.sequence === sequence && Math.floor(found.at / blockTokens) === block;
          return { sequence, block, mass: here ? 0.5 : 0.001 };
        }),
      )
      .sort((a, b) => b.mass - a.mass);
  }
}

function textOf(tokens: Uint32Array): string {
  return Buffer.from([...tokens].map(tokenToByte).filter((byte) => byte !== undefined)).toString("utf8");
}

/** Names of blocks. */
function places({ sequence, from, to }: BlockRange): string[] {
  return Array.from({ length: to - from }, (_, index) => `${sequence}:${from + index}`);
}

function parse(text: string): { key: string; tokens: number[] } {
  try {
    return JSON.parse(text) as { key: string; tokens: number[] };
  } catch {
    throw new NativeFailure("corrupt", "The segment is damaged.");
  }
}
