/**
 * SEAM 3: TypeScript ⇄ C++. The typed twin of native/addon/.
 *
 * Tokens, ids with log-probabilities, block ids and attention masses cross; logits, tensors and text never do.
 * Every method but `interrupt`, `cpu` and `ggufMetadata` queues one command on the model's single native thread and returns
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
}

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
  /** Such as "CPU AVX-512 VNNI". */
  readonly device: string;
  /** Changes when weights, KV type, RoPE or the KV layout do: part of the key under which KV is reused. Hex. */
  readonly fingerprint: string;
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
  openModel(options: OpenModelOptions): Promise<NativeModel>;
}

export interface SequenceOptions {
  /** Position of the sequence's first token. */
  readonly basePosition: number;
  /** Sequences whose every token this one sees, beside its own earlier tokens. They are kept alive and must not grow any more. */
  readonly attends: readonly NativeSequence[];
}

export interface MemoryUse {
  readonly kvBytes: number;
  readonly kvBlocks: number;
  readonly sequences: number;
}

export interface NativeModel {
  readonly info: ModelInfo;
  createSequence(options: SequenceOptions): Promise<NativeSequence>;
  /** Makes the command that runs now park and return soon. Not queued, never waits; without a running command it does nothing. */
  interrupt(): void;
  memory(): Promise<MemoryUse>;
  /** Frees everything after the commands queued before it; later calls reject with `disposed`. Twice is fine. */
  dispose(): Promise<void>;
}

export interface PrefillResult {
  /** Tokens of the sequence whose KV is complete. */
  readonly computed: number;
  readonly done: boolean;
  readonly interrupted: boolean;
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
}

export interface DecodeStep {
  readonly token: number;
  readonly logprob: number;
  /** [id, log-probability], best first; ties by lower id. */
  readonly top: readonly (readonly [number, number])[];
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
  /** Blocks attended to and blocks there were, summed over the attended sequences, of the last step. */
  readonly attendedBlocks: number;
  readonly totalBlocks: number;
}

export interface NativeSequence {
  /** Says what the sequence should hold. Keeps KV of the longest common prefix; the rest waits for `prefill`. */
  setTokens(tokens: Uint32Array): Promise<{ readonly kept: number }>;
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
  /** Replaces this (empty) sequence's content by what `path` holds. `corrupt` when it does not check out, `invalidArgument` for another key. */
  load(options: { readonly path: string; readonly key: string }): Promise<{ readonly tokens: number }>;
  dispose(): Promise<void>;
}
