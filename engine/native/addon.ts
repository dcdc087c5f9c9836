/**
 * SEAM 3: TypeScript ⇄ C++. The typed twin of native/addon/.
 *
 * Tokens, ids with log-probabilities, block ids and attention masses cross, and the bytes of tokens and of grammars;
 * logits, tensors and what anybody wrote never do.
 * Every method but `interrupt`, `cpu`, `ggufMetadata`, `setTokenBytes` and `createGrammar` queues one command on the model's single native thread and returns
 * a promise; commands run in the order they were queued. A command is bounded in time or looks at the
 * interrupt flag at least every 20 ms of work, parks its state and returns early with `interrupted: true`;
 * the same call again goes on where it stopped.
 *
 * A failed call rejects with an Error whose `code` is a NativeErrorCode and whose message is one sentence for the user.
 */

export type NativeErrorCode =
  "invalidArgument" | "notFound" | "io" | "corrupt" | "unsupported" | "outOfMemory" | "disposed" | "noSpace";

/** `auto` takes the best kernels this CPU can run. */
export type KernelChoice = "auto" | "generic" | "avx2" | "avx512" | "neon";

export interface CpuInfo {
  readonly brand: string;
  /** Instruction sets found, such as "avx2", "avx512vnni". */
  readonly features: readonly string[];
  readonly kernels: readonly KernelChoice[];
}

export interface OpenModelOptions {
  /** A GGUF file, or a folder with config.json and safetensors. */
  readonly path: string;
  readonly threads: number;
  /** `fast` quantises activations and keeps KV in f16; `f32` does neither (for checking numbers). */
  readonly precision: "fast" | "f32";
  readonly kernels: KernelChoice;
  /** A NOSA adapter made for this very model, one safetensors file. Rejects with `invalidArgument` for another model's. */
  readonly adapter?: string;
  /** The CUDA part, where a process to spare found that it works; without it the processor's cores do everything. */
  readonly cudaLibrary?: string;
  /** SHA-256 of the model's file, hex, which the adapter must name; needed with one. */
  readonly baseSha256?: string;
  /**
   * Where blocks go that no saved file holds, in a nameless file that ends with the process. With it, loaded sequences
   * stay in their files, and blocks are read when something attends to them. Without it all KV stays in memory.
   */
  readonly spillFolder?: string;
  /** Most bytes of that file; no limit when absent. */
  readonly spillBytesMax?: number;
}

/**
 * Where the ranking comes from that no query changes: eviction heads in the checkpoint itself, those of an adapter, or
 * keys alone. The first two are also added to the attention logits.
 */
export type SelectionSource = "native" | "adapter" | "trainingFree";

/**
 * What a completion's prompt shows first, the text before the cursor or that behind it: models are taught the former,
 * an adapter may teach the latter.
 */
export type CompletionOrder = "prefix-first" | "suffix-first";

export interface ModelInfo {
  readonly architecture: string;
  readonly name: string;
  readonly vocabSize: number;
  readonly layers: number;
  readonly embeddingLength: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Positions the model was trained for, RoPE scaling included. */
  readonly contextLength: number;
  readonly weightBytes: number;
  readonly kvBytesPerToken: number;
  readonly blockTokens: number;
  /** Sequences that one step of `decodeTogether` computes at most; 1 where each takes steps of its own. */
  readonly stepSequences: number;
  /** Such as "CPU AVX-512 VNNI", "NVIDIA H200", or, where the GPU takes products alone, "NVIDIA H200 + CPU AVX-512 VNNI". */
  readonly device: string;
  /** Why the GPU is not used although `cudaLibrary` was given: a sentence, or "". */
  readonly gpuProblem?: string;
  readonly selection: SelectionSource;
  readonly completionOrder: CompletionOrder;
  /** Memory that selection needs for each token in use, wherever its KV is: compressed keys and scores. */
  readonly sideCarBytesPerToken: number;
  /** Memory that computing takes beside KV and weights: activations, logits, a GPU's copies. Weights are mapped from their file. */
  readonly workBytes: number;
  /** Changes when weights, adapter, KV type, RoPE or the KV layout do: part of the key under which KV is reused. Hex. */
  readonly fingerprint: string;
}

/** What a look at the GPU found. */
export interface GpuProbe {
  /** One of our kernels ran there and gave the right answer. */
  readonly usable: boolean;
  /** Why it is not usable: a sentence; empty when it is. */
  readonly reason: string;
  /** Its name, free and whole memory, when the CUDA part could be loaded. */
  readonly gpu?: string;
  readonly freeBytes?: number;
  readonly totalBytes?: number;
}

/** Scalars of a GGUF header; arrays (tokens, merges, token types, scores) by name. Reads the header only; synchronous. */
export interface GgufMetadata {
  readonly scalars: Readonly<Record<string, string | number | boolean>>;
  readonly arrays: Readonly<Record<string, readonly (string | number | boolean)[]>>;
}

export interface NativeAddon {
  readonly version: string;
  cpu(): CpuInfo;
  ggufMetadata(path: string): GgufMetadata;
  /**
   * Loads the CUDA part from `libraryPath` and tries the first GPU. Synchronous, and a broken driver may end the process:
   * only for a process to spare.
   */
  probeGpu(libraryPath: string): GpuProbe;
  openModel(options: OpenModelOptions): Promise<NativeModel>;
}

export interface SequenceOptions {
  /** Position of the sequence's first token. */
  readonly basePosition: number;
  /** Sequences whose every token this one sees, beside its own earlier tokens. They are kept alive and must not grow any more. */
  readonly attends: readonly NativeSequence[];
}

export interface MemoryUse {
  /** KV of all sequences, wherever it is; what several share counts once. */
  readonly kvBytes: number;
  /** Blocks of one layer and KV head. */
  readonly kvBlocks: number;
  readonly sequences: number;
  /** Memory taken for KV blocks. */
  readonly residentBytes: number;
  /** Compressed keys and scores of all sequences, always in memory. */
  readonly sideCarBytes: number;
  /** What `limitMemory` said, or 0 for no limit. */
  readonly memoryBytesMax: number;
  /** KV read from and written to disk since the model was opened, saving apart. */
  readonly diskBytesRead: number;
  readonly diskBytesWritten: number;
  /** Blocks of one layer and KV head read from disk when they were wanted, since the model was opened. */
  readonly blocksRead: number;
  /** The same, read by `prefetch`; and how many of them were then attended to. */
  readonly blocksPrefetched: number;
  readonly prefetchedUsed: number;
  /** Blocks that no saved file holds, written to disk because their place was needed; and ahead of that, while computing. */
  readonly blocksSpilled: number;
  readonly blocksWrittenBehind: number;
  /** As in `ModelInfo`, but the GPU may have failed since. */
  readonly stepSequences: number;
  /** What computes now, and why it is not the GPU: as in `ModelInfo`, but the GPU may have failed since. */
  readonly device: string;
  readonly gpuProblem: string;
  /** What a GPU's memory holds: weights, and copies of KV. 0 without one. */
  readonly deviceBytes: number;
}

/**
 * Which blocks a query attends to. `full`: all. `infllmv2`: forced ones, then the best by the query. `nosa`: forced
 * ones, some by the query, and the rest by a ranking that no query changes.
 */
export type SelectionPolicy = "full" | "infllmv2" | "nosa";

/** Blocks of one attended sequence. */
export interface BlockRange {
  /** Index into `attends`. */
  readonly sequence: number;
  readonly from: number;
  /** Exclusive, at most the sequence's number of blocks. */
  readonly to: number;
}

/**
 * How a sequence's queries choose blocks. With at most `totalBlocks` of them that are not masked, all are taken. The
 * published constants of NOSA: 64 blocks in all, 16 by the query (of which 15 are free picks), 1 sink, 17 in the window.
 */
export interface SelectionOptions {
  readonly policy: SelectionPolicy;
  /** Blocks of 64 tokens that one query attends to, for each layer and KV head. Pinned ones take their room from it. */
  readonly totalBlocks: number;
  readonly queryBlocks: number;
  /** First blocks of what is attended, always taken. */
  readonly sinkBlocks: number;
  /** The sequence's own last blocks, the query's among them, always taken. */
  readonly windowBlocks: number;
  /** Never attended to, by any policy. */
  readonly masked: readonly BlockRange[];
  /** Attended to by every query, unless masked. */
  readonly pinned: readonly BlockRange[];
  /** Scores blocks by compressed keys as they are saved, not by those packed into 8 bits: to measure what that changes. */
  readonly exactKeys?: boolean;
}

/** What every token writes. */
export interface TokenBytes {
  /** Bytes of token `id` are `bytes[offsets[id]..offsets[id + 1])`. Control and unused tokens have none. */
  readonly bytes: Uint8Array;
  /** One more than there are tokens. */
  readonly offsets: Uint32Array;
}

/**
 * JSON values of a schema; numbers name others by their index. Strings are valid, numbers of bounded length, and blanks
 * between them too.
 */
export type ValueRule =
  /** One of these, byte for byte as JSON writes it: constants, enumerations, true, false, null. */
  | { readonly kind: "text"; readonly texts: readonly string[] }
  | { readonly kind: "string" }
  | { readonly kind: "number" }
  | { readonly kind: "integer" }
  /** In any order, each at most once. Other keys hold `rest`; without it there are none. At most 64 properties. */
  | { readonly kind: "object"; readonly properties: readonly PropertyRule[]; readonly rest?: number }
  | { readonly kind: "array"; readonly items: number; readonly min: number; readonly max?: number }
  /** None of them an `anyOf` itself. */
  | { readonly kind: "anyOf"; readonly values: readonly number[] };

export interface PropertyRule {
  /** As JSON writes it between the quotes. */
  readonly key: string;
  readonly value: number;
  readonly required: boolean;
}

/**
 * How a model calls functions: text; where `open` stands in it, one of the calls behind it (`begin`, JSON, `end`), then
 * `close`, then text again. Blanks may stand between these.
 */
export interface CallRules {
  readonly values: readonly ValueRule[];
  readonly open: string;
  readonly close: string;
  /** No `begin` begins another. */
  readonly calls: readonly { readonly begin: string; readonly arguments: number; readonly end: string }[];
  /** The text begins with a call. */
  readonly required: boolean;
}

/** Rules that were looked over. Collected when nothing holds it. */
export interface NativeGrammar {
  readonly grammar?: never;
}

export interface NativeModel {
  readonly info: ModelInfo;
  /** Says what tokens write, once, before the first grammar. Throws. Synchronous. */
  setTokenBytes(table: TokenBytes): void;
  /**
   * Throws `unsupported` when the vocabulary lacks a token for a single byte that may be needed, `invalidArgument` when the
   * rules make no sense or a value has no end within 64 levels. Synchronous.
   */
  createGrammar(rules: CallRules): NativeGrammar;
  createSequence(options: SequenceOptions): Promise<NativeSequence>;
  /**
   * Decodes several sequences, each once and by its own options, a step of each after the other; a result for each, in
   * order, as its own `decode` would give. On a GPU those that wait for one token alone share a step. When interrupted all
   * that are not over are parked, each by itself.
   */
  decodeTogether(options: { readonly tasks: readonly DecodeTask[] }): Promise<readonly DecodedTask[]>;
  /** Makes the command that runs now park and return soon. Not queued, never waits; without a running command it does nothing. */
  interrupt(): void;
  memory(): Promise<MemoryUse>;
  /**
   * From here on KV blocks take at most so much memory; there is no limit before. Beyond it blocks go to disk, so the
   * model needs a `spillFolder`; what is over a new limit goes at once. Rejects with `outOfMemory` when it cannot.
   */
  limitMemory(options: { readonly kvBytesMax: number }): Promise<void>;
  /** Frees everything after the commands queued before it; later calls reject with `disposed`. Twice is fine. */
  dispose(): Promise<void>;
}

export interface PrefillResult {
  /** Tokens of the sequence whose KV is complete. */
  readonly computed: number;
  readonly done: boolean;
  readonly interrupted: boolean;
  /** Blocks of one layer and KV head that this command read from disk. */
  readonly blocksRead: number;
  /** The same, copied from host memory to the GPU because its queries chose them. */
  readonly blocksFetched: number;
}

export interface SamplingOptions {
  /** 0 is greedy. */
  readonly temperature: number;
  /** 0 keeps all. */
  readonly topK: number;
  /** 1 keeps all. */
  readonly topP: number;
  /** 0 keeps all. */
  readonly minP: number;
  /** 1 is none; looks at the sequence's own last 256 tokens. */
  readonly repetitionPenalty: number;
  /** The draw at a position depends on (seed, position, logits) alone. */
  readonly seed: number;
}

export interface DecodeOptions {
  /** Most tokens to append in this command. */
  readonly steps: number;
  readonly sampling: SamplingOptions;
  /** Ids that end the generation; the id itself is returned, and not kept in the sequence. */
  readonly stopIds: readonly number[];
  /** Ids never to be drawn. */
  readonly bannedIds?: readonly number[];
  /** Best K ids with log-probabilities of every step; 0 for none. */
  readonly top?: number;
  /** Forces these tokens instead of drawing. */
  readonly teacher?: Uint32Array;
  /** Adds up attention mass by block of the attended sequences. */
  readonly masses?: boolean;
  /** Tells which blocks each step attended to. */
  readonly selections?: boolean;
  /**
   * Guesses tokens ahead from what the sequence can see, and computes several at once. The steps are the same to the bit; it
   * only takes less time. Not done together with `teacher`, `masses` or `selections`.
   */
  readonly drafts?: boolean;
  /**
   * Draws only what the rules allow, as if all other tokens were banned. Their text begins with the sequence's token `from`;
   * what is there already must follow them. Within a call the repetition penalty rests, as JSON repeats itself.
   */
  readonly grammar?: { readonly rules: NativeGrammar; readonly from: number };
}

export interface DecodeTask {
  readonly sequence: NativeSequence;
  readonly options: DecodeOptions;
}

/** Failed is what `decode` would reject with. */
export type DecodedTask =
  { readonly kind: "decoded"; readonly result: DecodeResult } | { readonly kind: "failed"; readonly error: Error };

export interface DecodeStep {
  readonly token: number;
  readonly logprob: number;
  /** [id, log-probability], best first; ties by lower id. */
  readonly top: readonly (readonly [number, number])[];
  /**
   * Empty unless asked for. Else the blocks that the query attended to which drew the token, [layers * kvHeads]: ascending
   * indices over the blocks of `attends`, one sequence after the other, then the sequence's own. An empty list is all of them.
   */
  readonly selections: readonly (readonly number[])[];
}

/** Attention mass that one block of an attended sequence received, averaged over layers, heads and the steps of the command. */
export interface BlockMass {
  /** Index into `attends`. */
  readonly sequence: number;
  /** Block of 64 tokens within it. */
  readonly block: number;
  readonly mass: number;
}

export interface DecodeResult {
  readonly steps: readonly DecodeStep[];
  readonly stopped: boolean;
  readonly interrupted: boolean;
  /** Empty unless asked for. Best first, at most 1,024. */
  readonly masses: readonly BlockMass[];
  /** Blocks that the last step attended to, the mean over layers and KV heads, rounded. */
  readonly attendedBlocks: number;
  /** Blocks there were for it: of all attended sequences, and the sequence's own. */
  readonly totalBlocks: number;
  /** Blocks of one layer and KV head that this command read from disk. */
  readonly blocksRead: number;
  /** The same, copied from host memory to the GPU because its queries chose them. */
  readonly blocksFetched: number;
  /** Tokens guessed ahead, and how many of them were right. */
  readonly drafted: number;
  readonly draftedRight: number;
  /** Steps that were shared with other sequences. */
  readonly shared: number;
}

export interface NativeSequence {
  /**
   * How queries choose their blocks from here on; `full` until it is called. What is computed stays as it is. Rejects with
   * `invalidArgument` when the budget cannot hold what is forced, or a range lies outside what is attended.
   */
  select(options: SelectionOptions): Promise<void>;
  /** Says what the sequence should hold. Keeps KV of the longest common prefix; the rest waits for `prefill`. */
  setTokens(tokens: Uint32Array): Promise<{ readonly kept: number }>;
  /** What it holds, those that wait for `prefill` among them. */
  tokens(): Promise<Uint32Array>;
  /**
   * Reads ahead from disk what the next query will attend to whatever it asks, as far as memory goes: the first of the
   * ranking that no query changes, what is pinned, sink and window. Changes no result. When interrupted the rest is left.
   */
  prefetch(): Promise<{ readonly blocks: number; readonly interrupted: boolean }>;
  /** Computes KV of at most `tokensMax` waiting tokens, in chunks on a fixed grid of the sequence's own positions. */
  prefill(options: { readonly tokensMax: number }): Promise<PrefillResult>;
  /** Appends tokens. Waiting tokens are computed first. With no token of its own it rejects. */
  decode(options: DecodeOptions): Promise<DecodeResult>;
  /** Log-probability of each token given all before it, from index `from` on (at least 1). Computes what is waiting. For measuring. */
  score(options: {
    readonly from: number;
  }): Promise<{ readonly logprobs: Float32Array; readonly interrupted: boolean }>;
  /** A copy that shares every full block; both may then grow apart. */
  fork(): Promise<NativeSequence>;
  /** Writes computed KV and tokens to `path` (aside, then renamed; owner-only). `key` is stored and must match on load. */
  save(options: { readonly path: string; readonly key: string }): Promise<{ readonly bytes: number }>;
  /**
   * Keeps what is computed so far, in whole blocks, in files beside `path`: appends what is new since the last call, so it is
   * cheap every few hundred tokens. `save` with the same path and key makes the whole file of it. Gives the tokens on disk.
   */
  checkpoint(options: { readonly path: string; readonly key: string }): Promise<{ readonly tokens: number }>;
  /**
   * Takes what `checkpoint` kept into this (empty) sequence; `setTokens` with all tokens goes on from there. `notFound` when
   * nothing was kept, else as `load`.
   */
  resume(options: { readonly path: string; readonly key: string }): Promise<{ readonly tokens: number }>;
  /** Replaces this (empty) sequence's content by what `path` holds. `corrupt` when it does not check out, `invalidArgument` for another key. */
  load(options: { readonly path: string; readonly key: string }): Promise<{ readonly tokens: number }>;
  dispose(): Promise<void>;
}
