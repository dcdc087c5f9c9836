/** One loaded model and everything that hangs from it: its scheduler, its words, the repositories in its memory. */

import { limits } from "../config";
import type { MemoryPlan } from "../contexts/budgets";
import { RepositoryContext } from "../contexts/repositoryContext";
import type { ContextStore } from "../contexts/store";
import { toolGrammar } from "../generation/toolGrammar";
import type { Log } from "../log";
import type { ResolvedModel } from "../models/registry";
import type { MemoryUse, ModelInfo, NativeGrammar, NativeModel } from "../native/addon";
import type { ToolUse } from "../protocol";
import { Scheduler } from "../scheduler/scheduler";
import type { ModelText } from "./modelText";
import * as path from "node:path";

export interface SessionOptions {
  readonly resolved: ResolvedModel;
  readonly model: NativeModel;
  readonly text: ModelText;
  readonly plan: MemoryPlan;
  /** Why no GPU computes from the start, as a sentence; "" when one does. */
  readonly deviceNote: string;
  readonly store: ContextStore;
  readonly log: Log;
}

/** Positions that the tail must be left with, whatever S is wished. */
const tailPositionsMin = 1_024;

export class Session {
  readonly resolved: ResolvedModel;
  readonly info: ModelInfo;
  readonly text: ModelText;
  readonly scheduler: Scheduler;
  readonly plan: MemoryPlan;
  /** S of this model. */
  readonly segmentPositions: number;
  readonly #options: SessionOptions;
  /** Most recently used last. */
  readonly #contexts = new Map<string, Promise<RepositoryContext>>();
  readonly #opened = new Map<string, RepositoryContext>();
  #memoryUse: MemoryUse | undefined;
  #askingMemory = false;
  #knowsTokens = false;
  readonly #stop = new AbortController();
  #disposed: Promise<void> | undefined;

  constructor(options: SessionOptions) {
    this.#options = options;
    this.resolved = options.resolved;
    this.info = options.model.info;
    this.text = options.text;
    this.plan = options.plan;
    this.scheduler = new Scheduler(options.model, {
      waitingMax: limits.requestsWaitingMax,
      // A GPU that has failed shares nothing any more.
      stepSequences: () => this.memoryUse?.stepSequences ?? this.info.stepSequences,
    });
    this.segmentPositions = segmentPositions(options.resolved.segmentTokensMax, this.info);
  }

  /** What was used of the memory budget, and read from disk, a moment ago; undefined until the first moment is over. */
  get memoryUse(): MemoryUse | undefined {
    this.#askMemory();
    return this.#memoryUse;
  }

  /** What computes. A GPU that fails leaves it to the processor's cores. */
  get device(): string {
    return this.memoryUse?.device ?? this.info.device;
  }

  /** Why no GPU computes, as a sentence; "" when one does. */
  get deviceNote(): string {
    const problem = this.memoryUse?.gpuProblem ?? "";
    return problem === "" ? this.#options.deviceNote : problem;
  }

  /** What holds an answer's calls to these tools; undefined where the model's vocabulary cannot be held to anything. */
  toolGrammar(tools: ToolUse): NativeGrammar | undefined {
    const { model, text, log } = this.#options;
    try {
      if (!this.#knowsTokens) model.setTokenBytes(text.tokenBytes);
      this.#knowsTokens = true;
      return model.createGrammar(toolGrammar(tools));
    } catch (error) {
      log.info(`Calls are not held to their schemas. ${String(error)}`);
      return undefined;
    }
  }

  /** Repositories that are open, for the status. */
  get contexts(): readonly RepositoryContext[] {
    return [...this.#opened.values()];
  }

  /** The context of a repository, or with "" one of none. Opening reads no KV. */
  context(root: string): Promise<RepositoryContext> {
    const known = this.#contexts.get(root);
    if (known !== undefined) {
      this.#contexts.delete(root);
      this.#contexts.set(root, known);
      return known;
    }
    const opening = this.#open(root);
    this.#contexts.set(root, opening);
    opening.catch(() => this.#contexts.delete(root));
    this.#closeOldest();
    return opening;
  }

  opened(root: string): RepositoryContext | undefined {
    return this.#opened.get(root);
  }

  /** Lets go of a repository's memory. */
  async close(root: string): Promise<void> {
    const known = this.#contexts.get(root);
    this.#contexts.delete(root);
    this.#opened.delete(root);
    await (await known?.catch(() => undefined))?.dispose();
  }

  dispose(): Promise<void> {
    this.#disposed ??= this.#dispose();
    return this.#disposed;
  }

  /** Answered between two commands of any kind: it interrupts nothing, and nobody waits for it. */
  #askMemory(): void {
    if (this.#askingMemory || this.#disposed !== undefined) return;
    this.#askingMemory = true;
    this.scheduler
      .run({ kind: "indexing", signal: this.#stop.signal }, (model) => model.memory())
      .then(
        (use) => (this.#memoryUse = use),
        () => undefined,
      )
      .finally(() => (this.#askingMemory = false));
  }

  async #dispose(): Promise<void> {
    this.#stop.abort();
    await this.scheduler.dispose();
    for (const root of [...this.#contexts.keys()]) await this.close(root);
    await this.#options.model.dispose();
    await this.text.dispose();
  }

  async #open(root: string): Promise<RepositoryContext> {
    const headerTokens = await this.text.header(root === "" ? "" : path.basename(root));
    const context = new RepositoryContext({
      root,
      identity: {
        fingerprint: this.info.fingerprint,
        headerTokens,
        segmentPositions: this.segmentPositions,
        policy: "full",
      },
      tokenBytes: this.text.tokenBytes,
      blockTokens: this.info.blockTokens,
      bytesPerToken: this.info.kvBytesPerToken + this.info.sideCarBytesPerToken,
      scheduler: this.scheduler,
      store: this.#options.store,
      log: this.#options.log,
    });
    this.#opened.set(root, context);
    return context;
  }

  #closeOldest(): void {
    const repositories = [...this.#contexts.keys()].filter((root) => root !== "");
    for (const root of repositories.slice(0, Math.max(0, repositories.length - limits.contextsLoadedMax))) {
      void this.close(root);
    }
  }
}

/** S in whole blocks: what is wished, unless the model has too few positions for that and a tail. */
function segmentPositions(wished: number, info: ModelInfo): number {
  const most = Math.max(info.blockTokens, Math.min(wished, info.contextLength - tailPositionsMin));
  return Math.floor(most / info.blockTokens) * info.blockTokens;
}
