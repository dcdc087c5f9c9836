/**
 * Text ⇄ token ids of one model, equal to llama.cpp's. Encoding runs in a worker thread; decoding needs only a table and runs here.
 */

import { Worker } from "node:worker_threads";
import { Cancelled, EngineError } from "../errors";
import type { TokenBytes } from "../native/addon";
import type { VocabularyLines } from "./lines";
import { textStream, type TextStream } from "./textStream";
import type { EncodeInput, FromWorker, TokenizerFacts, ToWorker, WorkerStart } from "./workerMessages";

export type { EncodeInput } from "./workerMessages";
export type { TextStream } from "./textStream";

export interface TokenizerOptions {
  /** The native addon, whose `ggufMetadata` reads the vocabulary of a GGUF file. */
  readonly addonPath: string;
  /** The bundled tokenizerWorker.ts. */
  readonly workerPath: string;
}

interface Waiting {
  readonly resolve: (ids: Uint32Array[]) => void;
  readonly reject: (error: Error) => void;
}

/** Owns the worker thread. */
export class Tokenizer {
  readonly vocabSize: number;
  /** Jinja source of the model's chat template, "" when it has none. */
  readonly chatTemplate: string;
  /** Ids that end a turn or a text; at least one. */
  readonly eosIds: readonly number[];
  /** Ids that are never text: control tokens and unused ones. */
  readonly controlIds: readonly number[];
  /** Begin-of-text id when the model wants one at the very start of a sequence (the header adds it), else undefined. */
  readonly bosId: number | undefined;
  readonly lines: VocabularyLines;

  readonly #worker: Worker;
  readonly #facts: TokenizerFacts;
  readonly #special: ReadonlyMap<string, number>;
  readonly #markText: ReadonlyMap<number, string>;
  readonly #waiting = new Map<number, Waiting>();
  #nextJob = 0;
  #ended: EngineError | undefined;

  private constructor(worker: Worker, facts: TokenizerFacts) {
    this.#worker = worker;
    this.#facts = facts;
    this.#special = new Map(facts.special);
    this.#markText = new Map(facts.special.map(([text, id]) => [id, text]));
    this.vocabSize = facts.tokenBytes.offsets.length - 1;
    this.chatTemplate = facts.chatTemplate;
    this.eosIds = facts.eosIds;
    this.controlIds = facts.controlIds;
    this.bosId = facts.bosId;
    this.lines = facts.lines;
    worker.on("message", (message: FromWorker) => this.#receive(message));
    worker.on("error", (error) => this.#end(new EngineError("internal", `The tokenizer stopped: ${error.message}`)));
    worker.on("exit", () => this.#end(new EngineError("internal", "The tokenizer has stopped.")));
    // An idle worker keeps no process alive.
    worker.unref();
  }

  /**
   * Reads the vocabulary of a GGUF file or of a folder with `tokenizer.json`. Rejects with EngineError `modelMissing`, `modelBroken`, or
   * `modelUnsupported` when the kind of vocabulary is not one we know to encode exactly.
   */
  static async open(modelPath: string, options: TokenizerOptions): Promise<Tokenizer> {
    const workerData: WorkerStart = { modelPath, addonPath: options.addonPath };
    const worker = new Worker(options.workerPath, { workerData });
    const first = await new Promise<FromWorker>((resolve, reject) => {
      worker.once("message", resolve);
      worker.once("error", reject);
      worker.once("exit", () => reject(new EngineError("internal", "The tokenizer stopped while it started.")));
    });

    if (first.kind === "ready") return new Tokenizer(worker, first.facts);
    await worker.terminate();
    throw first.kind === "failed"
      ? new EngineError(first.error, first.message)
      : new EngineError("internal", "The tokenizer answered before it was ready.");
  }

  /** Id of a control or user-defined token by its exact text, such as "<|file_sep|>"; undefined when the vocabulary lacks it. */
  id(name: string): number | undefined {
    return this.#special.get(name);
  }

  /** Exact text of a control or user-defined token; "" for any other id and for undefined. */
  markText(id: number | undefined): string {
    return (id === undefined ? undefined : this.#markText.get(id)) ?? "";
  }

  /** One array of ids for each input. Rejects after `dispose`, and with Cancelled as soon as `signal` is aborted. */
  async encode(inputs: readonly EncodeInput[], signal?: AbortSignal): Promise<Uint32Array[]> {
    if (this.#ended !== undefined) throw this.#ended;
    if (signal?.aborted === true) throw new Cancelled();
    const job = this.#nextJob++;
    const cancel = (): void => {
      this.#post({ kind: "cancel", job });
      this.#settle(job)?.reject(new Cancelled());
    };
    signal?.addEventListener("abort", cancel, { once: true });
    try {
      return await new Promise<Uint32Array[]>((resolve, reject) => {
        this.#waiting.set(job, { resolve, reject });
        this.#worker.ref();
        this.#post({ kind: "encode", job, inputs });
      });
    } finally {
      signal?.removeEventListener("abort", cancel);
    }
  }

  /** Encodes each input apart (no merge crosses a border) and joins the ids. */
  async encodeJoined(inputs: readonly EncodeInput[], signal?: AbortSignal): Promise<Uint32Array> {
    return joined(await this.encode(inputs, signal));
  }

  /** Bytes of every token. */
  get tokenTable(): TokenBytes {
    return this.#facts.tokenBytes;
  }

  /** A view of the token's bytes; empty for control tokens and for ids out of range. */
  tokenBytes(id: number): Uint8Array {
    const { bytes, offsets } = this.#facts.tokenBytes;
    return bytes.subarray(offsets[id] ?? 0, offsets[id + 1] ?? 0);
  }

  /** All ids at once; incomplete UTF-8 becomes U+FFFD. */
  decode(ids: Iterable<number>): string {
    const stream = this.decodeStream();
    let text = "";
    for (const id of ids) text += stream.push(id);
    return text + stream.end();
  }

  decodeStream(): TextStream {
    return textStream((id) => this.tokenBytes(id));
  }

  async dispose(): Promise<void> {
    this.#end(new EngineError("internal", "The tokenizer was closed."));
    await this.#worker.terminate();
  }

  #post(message: ToWorker): void {
    this.#worker.postMessage(message);
  }

  #receive(message: FromWorker): void {
    if (message.kind === "encoded") this.#settle(message.job)?.resolve([...message.ids]);
  }

  #settle(job: number): Waiting | undefined {
    const waiting = this.#waiting.get(job);
    this.#waiting.delete(job);
    if (this.#waiting.size === 0) this.#worker.unref();
    return waiting;
  }

  #end(error: EngineError): void {
    this.#ended ??= error;
    for (const { reject } of this.#waiting.values()) reject(this.#ended);
    this.#waiting.clear();
  }
}

export function joined(parts: readonly Uint32Array[]): Uint32Array {
  const all = new Uint32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
