/**
 * SEAM 1: extension (or terminal) ⇄ engine.
 *
 * JSON-RPC over one per-user socket. Beside the LSP messages it serves (initialize, document sync,
 * `textDocument/inlineCompletion`, `$/cancelRequest`, `$/progress`) the engine knows the requests and notifications
 * below and nothing else. Plain data only. Values that come in are parsed once, at the edge, and trusted afterwards.
 */

/** Both sides must agree; an engine refuses a client of another version with the error kind `versionMismatch`. */
export const protocolVersion = 1;

/** `initialize.initializationOptions`: who is calling, and the right to. */
export interface ClientHello {
  readonly protocolVersion: number;
  /** Contents of the engine's token file; proves that the client may read the user's files. */
  readonly token: string;
  readonly client: "vscode" | "terminal" | "test";
  readonly settings: EngineSettings;
}

/** What the user may choose. `package.json` lists the same names as `nosa.*`. */
export interface EngineSettings {
  /** Id of a known model, an absolute path, or "" for the best that is on disk. */
  readonly model: string;
  /** 0: as many as there are physical cores. */
  readonly threads: number;
  /** Globs left out of the context, beside ignore files and the editor's own excludes. */
  readonly exclude: readonly string[];
  /** Files larger than this are left out. */
  readonly fileKilobytesMax: number;
  /** Most tokens of one repository in the context. */
  readonly contextTokensMax: number;
  /** Most memory for what was read: KV and what selection keeps beside it, in 10^9 bytes; 0: a share of the machine's. */
  readonly memoryGigabytes: number;
  /** Most disk for what was read, of all repositories together, in 10^9 bytes; 0: a share of what is free. */
  readonly diskGigabytes: number;
  readonly completions: CompletionSettings;
  /** Base address of a mirror of the model hub, or "". */
  readonly hubMirror: string;
}

export interface CompletionSettings {
  readonly enabled: boolean;
  /** Whether typing asks; where it does not, the editor's own command still does. */
  readonly automatic: boolean;
  /** Language id → on or off; "*" is the rest. */
  readonly languages: Readonly<Record<string, boolean>>;
  readonly tokensMax: number;
}

/** Whether typing may be answered in this language. */
export function completesLanguage({ languages }: Pick<CompletionSettings, "languages">, languageId: string): boolean {
  return languages[languageId] ?? languages["*"] ?? true;
}

/** Requests, client → engine: name → [params, result]. */
export interface Requests {
  /** The engine's state now. */
  "nosa/status": [Record<string, never>, EngineStatus];
  /** Takes new settings; a new model is loaded when it is next needed. */
  "nosa/configure": [EngineSettings, Record<string, never>];
  /** Reads a repository into its context, resuming what an earlier call left; `nosa/indexProgress` reports. Cancelling keeps what is done. */
  "nosa/index": [IndexParams, IndexSummary];
  /** Files of a repository's context and their state. */
  "nosa/context": [RootParams, ContextView];
  /** Deletes everything kept of a repository. */
  "nosa/forget": [RootParams, ForgetResult];
  /** One chat turn over a repository's context. Streams ChatDelta through the params' `partialResultToken`. */
  "nosa/chat": [ChatParams, ChatResult];
  /** What the completions of this client attend to in a repository, whatever the selection prefers. Holds until it is told otherwise. */
  "nosa/pins": [PinsParams, Record<string, never>];
  /** Somebody may soon ask for a completion here: what it begins with is read, where nothing has to be loaded for that. Resolves before it is. */
  "nosa/prepare": [PrepareParams, Record<string, never>];
  /** Known models, the fitting first. */
  "nosa/models": [Record<string, never>, readonly ModelEntry[]];
  /** Fetches and verifies a model; `nosa/downloadProgress` reports. Cancelling keeps the part that is there. */
  "nosa/download": [DownloadParams, ModelEntry];
  /** Deletes a fetched model, or the part of one that was fetched; one that is in use is refused. */
  "nosa/deleteModel": [DownloadParams, ForgetResult];
  /** Finishes what runs, saves, and exits; a newer engine asks this of an older one. */
  "nosa/drain": [Record<string, never>, Record<string, never>];
}

/** Notifications, engine → client: name → params. */
export interface Notifications {
  /** The state changed; at most ten a second. */
  "nosa/statusChanged": EngineStatus;
  "nosa/indexProgress": IndexProgress;
  "nosa/downloadProgress": DownloadProgress;
}

export interface RootParams {
  /** Absolute path of a workspace folder. */
  readonly root: string;
}

export interface PinsParams extends RootParams {
  /** All of them; what is not in the context counts for nothing. */
  readonly pins: readonly Place[];
}

/** A place in an open document, as LSP counts it. */
export interface PrepareParams {
  readonly uri: string;
  readonly line: number;
  readonly character: number;
}

export interface IndexParams extends RootParams {
  /** The editor's `files.exclude` and `search.exclude` for this root: glob → on. */
  readonly editorExcludes: Readonly<Record<string, boolean>>;
  /** Files and folders (with a slash at the end; "/" is everything) that are read anew although they did not change. */
  readonly reread?: readonly string[];
}

export interface IndexProgress extends RootParams {
  readonly stage: "scanning" | "loading" | "reading" | "saving";
  readonly filesDone: number;
  readonly filesTotal: number;
  readonly tokensDone: number;
  readonly tokensTotal: number;
  readonly tokensPerSecond: number;
  /** -1 while unknown. */
  readonly secondsLeft: number;
  /** Path, relative to the root, of the file being read; "" when there is none. */
  readonly path: string;
}

export interface IndexSummary extends RootParams {
  readonly files: number;
  readonly tokens: number;
  /** Tokens whose KV was computed by this call; the rest was there already. */
  readonly tokensRead: number;
  readonly leftOut: number;
  readonly seconds: number;
  readonly complete: boolean;
}

export type FileState =
  | { readonly kind: "fresh" }
  | { readonly kind: "stale" }
  | { readonly kind: "reading" }
  | { readonly kind: "waiting" }
  | { readonly kind: "leftOut"; readonly reason: LeftOutReason };

export type LeftOutReason =
  "ignored" | "excluded" | "tooLarge" | "binary" | "secret" | "generated" | "unreadable" | "link" | "budget";

export interface ContextFile {
  /** Relative to the root, with forward slashes. */
  readonly path: string;
  readonly tokens: number;
  readonly state: FileState;
}

export interface ContextView extends RootParams {
  readonly files: readonly ContextFile[];
  readonly tokens: number;
  readonly bytesInMemory: number;
  readonly bytesOnDisk: number;
}

export interface ForgetResult {
  readonly bytesFreed: number;
}

export interface ChatMessage {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
}

/** Lines of a file, a whole file, or a folder. */
export interface Place {
  /** Relative to the root; a folder's ends with a slash. */
  readonly path: string;
  /** From 1, inclusive; both 0 for all of it. */
  readonly startLine: number;
  readonly endLine: number;
}

export interface ChatParams {
  /** "" chats with no repository. */
  readonly root: string;
  readonly messages: readonly ChatMessage[];
  /** Attended to by every word of the answer, whatever the selection prefers. What is not in the context counts for nothing. */
  readonly pins?: readonly Place[];
  /** The answer attends to nothing of the repository but these; the whole of it when absent or empty. */
  readonly scope?: readonly Place[];
  /** Measures first what answers to neutral questions draw on, where that was not done yet, so that references are at their best. */
  readonly why?: boolean;
  readonly tokensMax: number;
  readonly temperature: number;
  readonly seed: number;
  /** Functions that the answer may call. What the model is told about them stands in the messages. */
  readonly tools?: ToolUse;
  readonly partialResultToken?: string | number;
}

/**
 * Calls of an answer: `{"name": ..., "arguments": ...}` between `open` and `close`. Whatever the model would rather write, a
 * call names one of the functions, and its arguments fit that function's schema; bounds, patterns and formats apart.
 */
export interface ToolUse {
  readonly open: string;
  readonly close: string;
  /** The answer begins with a call. */
  readonly required: boolean;
  /** At least one; `schema` is a JSON schema of the arguments. */
  readonly functions: readonly { readonly name: string; readonly schema: unknown }[];
}

export type ChatDelta =
  | { readonly kind: "text"; readonly text: string }
  /** What happens before the first token, in words for the user. */
  | { readonly kind: "stage"; readonly stage: "loading" | "restoring" | "reading" };

export interface ChatResult {
  readonly text: string;
  readonly finish: "stop" | "length" | "cancelled";
  /** What the answer drew on, by attention mass, best first. */
  readonly references: readonly Reference[];
  /** Everything that received more attention than its kind does on average, best first: for a map. Absent with no repository. */
  readonly attention?: readonly Reference[];
  readonly usage: Usage;
}

export interface Reference {
  /** Relative to the root. */
  readonly path: string;
  /** From 1, inclusive. */
  readonly startLine: number;
  readonly endLine: number;
  /** Share of the attention that the repository received, 0 to 1. */
  readonly share: number;
}

export interface Usage {
  /** Tokens of the repository that the answer could attend to. */
  readonly contextTokens: number;
  readonly promptTokens: number;
  readonly answerTokens: number;
  /** Blocks of 64 tokens that the last token attended to, the mean over layers and heads, and blocks there were. */
  readonly attendedBlocks: number;
  readonly totalBlocks: number;
  readonly policy: SelectionPolicy;
  /** Blocks of one layer and KV head that were fetched from disk for the answer. */
  readonly blocksRead: number;
  /** The same, fetched from host memory to a GPU that computes. */
  readonly blocksFetched?: number;
  readonly millis: {
    readonly restore: number;
    readonly prefill: number;
    readonly firstToken: number;
    readonly decode: number;
  };
}

/** `full`: every block was attended to, since there were no more than the budget; `nosa`: those that selection chose. */
export type SelectionPolicy = "full" | "nosa";

/** Where the ranking of blocks comes from that no query changes: the model itself, an adapter, or keys alone. */
export type SelectionSource = "native" | "adapter" | "trainingFree";

export interface ModelEntry {
  readonly id: string;
  readonly name: string;
  readonly licence: string;
  readonly bytes: number;
  /** Of a download that was stopped: what has arrived. 0 when there is none, or the model is whole. */
  readonly bytesArrived?: number;
  readonly onDisk: boolean;
  readonly fitsMachine: boolean;
  readonly recommended: boolean;
}

export interface DownloadParams {
  readonly model: string;
}

export interface DownloadProgress {
  readonly model: string;
  readonly stage: "fetching" | "verifying";
  readonly source: "hub" | "package";
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

export type Activity =
  | { readonly kind: "idle" }
  | { readonly kind: "downloading"; readonly percent: number }
  | { readonly kind: "loading" }
  | {
      readonly kind: "indexing";
      readonly percent: number;
      readonly tokensPerSecond: number;
      readonly secondsLeft: number;
    }
  | { readonly kind: "answering" }
  | { readonly kind: "completing" };

export interface EngineStatus {
  readonly engineVersion: string;
  /** Null until a model is loaded or chosen. */
  readonly model: { readonly id: string; readonly name: string; readonly loaded: boolean } | null;
  /** Such as "CPU AVX-512 VNNI"; "" until a model is loaded. */
  readonly device: string;
  /** Why no GPU computes, as a sentence; "" when one does, and until a model is loaded. */
  readonly deviceNote?: string;
  readonly contexts: readonly ContextStatus[];
  readonly activity: Activity;
  readonly clients: number;
  readonly kvBytes: number;
  readonly memory: MemoryStatus;
  /** What is wrong at the moment, as a sentence that says what to do; "" when nothing is. */
  readonly problem: string;
}

/** What is used of the budgets. All 0 but `diskBytes` and `diskBytesMax` until a model is loaded. */
export interface MemoryStatus {
  /** KV in memory, and what selection keeps beside it. */
  readonly bytes: number;
  readonly bytesMax: number;
  /** What the process takes beside it: the program, the tokenizer, the model's buffers. Weights are not counted. */
  readonly engineBytes?: number;
  /** How memory and disk are divided, as a line; absent until a model is loaded. */
  readonly plan?: string;
  /** Why `bytesMax` is more than was asked for, as a sentence; "" when it is not. */
  readonly note?: string;
  /** Everything saved, of all repositories. */
  readonly diskBytes: number;
  readonly diskBytesMax: number;
  /** KV fetched from disk since the model was loaded. */
  readonly diskBytesRead: number;
  /** Of an accelerator: what it holds, weights among it, and may hold. Absent without one. */
  readonly deviceBytes?: number;
  readonly deviceBytesMax?: number;
}

export interface ContextStatus extends RootParams {
  readonly files: number;
  readonly tokens: number;
  readonly complete: boolean;
  /** Blocks the last request attended to, and blocks there were; 0 before the first. */
  readonly attendedBlocks: number;
  readonly totalBlocks: number;
  /** Of the last request. */
  readonly policy: SelectionPolicy;
  readonly blocksRead: number;
  readonly blocksFetched?: number;
  /** Where the loaded model's ranking comes from. */
  readonly selection: SelectionSource;
}

/** Closed list. The message of an error is a sentence for the user; the kind decides what is offered. */
export type ErrorKind =
  | "versionMismatch"
  | "forbidden"
  | "badRequest"
  | "modelMissing"
  | "modelBroken"
  | "modelUnsupported"
  | "downloadFailed"
  | "rootMissing"
  | "repositoryEmpty"
  | "notIndexed"
  | "noSpace"
  | "outOfMemory"
  | "draining"
  | "internal";

/** `error.data` of a failed request; `error.code` is always this number. */
export const engineErrorCode = -32050;
export interface ErrorData {
  readonly kind: ErrorKind;
}

/** Data of an inline completion item beside the LSP fields, for the extension's own use. */
export interface CompletionStats {
  /** Tokens of the repository that could be attended to. */
  readonly contextTokens: number;
  /** Tokens that the last word written did attend to, the mean over layers and heads. */
  readonly attendedTokens: number;
  /** Blocks of one layer and KV head that were fetched from disk for it. */
  readonly blocksRead: number;
  /** The same, fetched from host memory to a GPU that computes. */
  readonly blocksFetched?: number;
  readonly promptTokens: number;
  /** Those of the prompt that were not there from the last one. */
  readonly promptTokensRead: number;
  readonly tokens: number;
  readonly cached: boolean;
  readonly millis: { readonly queue: number; readonly prefill: number; readonly decode: number };
}
