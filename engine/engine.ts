/** The composition root: builds the parts, answers what concerns all of them, and disposes in reverse order. */

import { Chat } from "./chat/chat";
import { Completions } from "./completions/completions";
import { limits } from "./config";
import { describePlan, planNote } from "./contexts/budgets";
import { tokensOf, type ContextRecord } from "./contexts/context";
import type { RepositoryContext } from "./contexts/repositoryContext";
import { Roots } from "./contexts/roots";
import { ContextStore } from "./contexts/store";
import { EngineError, toEngineError } from "./errors";
import { Indexing } from "./indexing/indexing";
import type { Log } from "./log";
import type { downloadModel } from "./models/download";
import { Downloads } from "./models/downloads";
import type { ModelRegistry, ResolvedModel } from "./models/registry";
import { nothingAttended, type Attended } from "./generation/generate";
import type { DataPaths } from "./paths";
import type { Activity, ContextStatus, ContextView, EngineSettings, EngineStatus, MemoryStatus } from "./protocol";
import { loadChatBase } from "./sessions/prepareChats";
import type { Session } from "./sessions/session";
import { Sessions, type ModelChoice } from "./sessions/sessions";
import { ThrottledEvent } from "./util/events";

export interface EngineOptions {
  readonly paths: DataPaths;
  readonly version: string;
  readonly log: Log;
  readonly registry: Pick<ModelRegistry, "entries" | "resolve" | "knownId" | "delete">;
  readonly download: typeof downloadModel;
  readonly openSession: (resolved: ResolvedModel, choice: ModelChoice, store: ContextStore) => Promise<Session>;
  /** Absolute paths of files that any client has open. */
  readonly openFiles: () => readonly string[];
}

/** An answer that takes longer than this is broken off when the engine has to leave. */
const finishMsMax = 5_000;

export class Engine {
  readonly chat: Chat;
  readonly completions: Completions;
  readonly indexing: Indexing;
  readonly downloads: Downloads;
  readonly registry: EngineOptions["registry"];
  readonly roots = new Roots();
  /** The status changed. */
  readonly changed = new ThrottledEvent(limits.statusPerSecondMax);
  readonly #options: EngineOptions;
  readonly #store: ContextStore;
  readonly #sessions: Sessions;
  /** By root: what the last request attended to. */
  readonly #attended = new Map<string, Attended>();

  private constructor(options: EngineOptions, store: ContextStore) {
    const onChange = (): void => this.changed.fire();
    const onAttended = (root: string, attended: Attended): void => {
      this.#attended.set(root, attended);
      onChange();
    };
    const { registry, log, openFiles, download, paths } = options;
    this.#options = options;
    this.#store = store;
    this.registry = registry;
    this.#sessions = new Sessions({
      registry,
      log,
      onChange,
      open: (resolved, choice) => options.openSession(resolved, choice, store),
    });
    const sessions = this.#sessions;
    this.downloads = new Downloads({
      registry,
      download,
      modelsFolder: paths.models,
      onChange,
      onNotice: (line) => log.info(line),
    });
    this.indexing = new Indexing({ sessions, store, log, openFiles, onChange });
    const repair = this.indexing.repair.bind(this.indexing);
    this.chat = new Chat({ sessions, log, onAttended, repair });
    this.completions = new Completions({ sessions, onAttended, repair });
  }

  static async create(options: EngineOptions): Promise<Engine> {
    return new Engine(options, await ContextStore.open(options.paths.contexts, options.log));
  }

  /** Deletes a model that nobody uses; resolves with the bytes that were freed. */
  async deleteModel(id: string): Promise<number> {
    const isLoaded = this.#sessions.loaded.some(({ resolved }) => resolved.id === id);
    if (isLoaded || this.downloads.isRunning(id)) {
      throw new EngineError("badRequest", "This model is in use: choose another one first.");
    }
    const bytes = await this.registry.delete(id);
    this.changed.fire();
    return bytes;
  }

  async status(settings: EngineSettings, clients: number): Promise<EngineStatus> {
    const resolved = await this.#resolve(settings);
    const session = this.#sessionOf(resolved);
    const chosen = session?.resolved ?? ("problem" in resolved ? undefined : resolved);
    const contexts = this.#records(chosen?.id).map((record) => this.#contextStatus(record, session));
    const bytes = this.#sessions.loaded.flatMap(({ contexts: open }) => open.map((context) => context.bytes));
    return {
      engineVersion: this.#options.version,
      model: chosen === undefined ? null : { id: chosen.id, name: chosen.name, loaded: session !== undefined },
      device: session?.device ?? "",
      deviceNote: session?.deviceNote ?? "",
      contexts,
      activity: this.#activity(),
      clients,
      kvBytes: bytes.reduce((total, each) => total + each, 0),
      memory: this.#memory(session),
      problem: "problem" in resolved ? resolved.problem : this.#sessions.problemOf(resolved.path),
    };
  }

  /** `root` as the client spelled it. */
  async contextView(root: string, settings: EngineSettings): Promise<ContextView> {
    const canonical = await this.roots.canonicalOrGone(root);
    const resolved = await this.#resolve(settings);
    const session = this.#sessionOf(resolved);
    const context = session?.opened(canonical);
    const id = "problem" in resolved ? undefined : resolved.id;
    const record = context?.record ?? this.#records(id).find((each) => each.root === canonical);
    if (record === undefined) return { root, files: [], tokens: 0, bytesInMemory: 0, bytesOnDisk: 0 };
    const keys = [record.header.key, ...record.segments.map(({ key }) => key), ...record.tails];
    return {
      root,
      files: [
        ...record.files.map(({ path, tokens }) => ({
          path,
          tokens,
          state: this.indexing.fileState(canonical, context, record, path),
        })),
        ...record.leftOut.map(({ path, reason }) => ({ path, tokens: 0, state: { kind: "leftOut" as const, reason } })),
      ],
      tokens: tokensOf(record),
      bytesInMemory: context?.bytes ?? 0,
      bytesOnDisk: keys.reduce((total, key) => total + this.#store.bytesOf(key), 0),
    };
  }

  /** Deletes everything kept of a repository, in memory and on disk. Resolves with the bytes freed on disk. */
  async forget(root: string): Promise<number> {
    const canonical = await this.roots.canonicalOrGone(root);
    await this.indexing.stop(canonical);
    for (const session of this.#sessions.loaded) await session.close(canonical);
    const freed = await this.#store.forget(canonical);
    this.#attended.delete(canonical);
    this.changed.fire();
    return freed;
  }

  /**
   * Loads ahead what the first question of a window needs: the model and what was read of its first folder. Nothing where
   * nothing was read. What goes wrong is told to whoever asks.
   */
  async warm(folders: readonly string[], settings: EngineSettings): Promise<void> {
    const known = new Set(this.knownRoots());
    const roots = await Promise.all(folders.map((folder) => this.roots.canonicalOrGone(folder)));
    const root = roots.find((each) => known.has(each));
    if (root === undefined) return;
    const { signal } = new AbortController();
    await this.#sessions.use(settings, signal, async (session) => {
      const context = await session.context(root);
      await context.restore();
      await loadChatBase(session, context);
    });
  }

  /** Roots of which something is kept, canonical. */
  knownRoots(): readonly string[] {
    return this.#store.records().map(({ root }) => root);
  }

  /** Stops reading repositories, which resume, and waits a while for the answers that are being given. */
  async finish(): Promise<void> {
    await this.indexing.dispose();
    const until = performance.now() + finishMsMax;
    while (this.chat.answering + this.completions.completing > 0 && performance.now() < until) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  async dispose(): Promise<void> {
    await this.indexing.dispose();
    await this.downloads.dispose();
    await this.#sessions.dispose();
    await this.#store.dispose();
    this.changed.dispose();
  }

  async #resolve(settings: EngineSettings): Promise<ResolvedModel | { readonly problem: string }> {
    return this.registry.resolve(settings.model).catch((error: unknown) => ({ problem: toEngineError(error).message }));
  }

  #sessionOf(resolved: ResolvedModel | { readonly problem: string }): Session | undefined {
    if ("problem" in resolved) return undefined;
    return this.#sessions.loaded.find((session) => session.resolved.path === resolved.path);
  }

  /** Of one model; of every root the only one when the model is not known. */
  #records(model: string | undefined): readonly ContextRecord[] {
    const records = this.#store.records();
    if (model !== undefined) return records.filter((record) => record.model === model);
    return [...new Map(records.map((record) => [record.root, record])).values()];
  }

  #memory(session: Session | undefined): MemoryStatus {
    const use = session?.memoryUse;
    return {
      bytes: use === undefined ? 0 : use.residentBytes + use.sideCarBytes,
      bytesMax: session?.plan.memoryBytes ?? 0,
      ...planned(session),
      diskBytes: this.#store.bytes,
      diskBytesMax: Number.isFinite(this.#store.bytesMax) ? this.#store.bytesMax : 0,
      diskBytesRead: use?.diskBytesRead ?? 0,
      ...(use === undefined || use.deviceBytes === 0 ? {} : { deviceBytes: use.deviceBytes }),
    };
  }

  #contextStatus(record: ContextRecord, session: Session | undefined): ContextStatus {
    const context: RepositoryContext | undefined = session?.opened(record.root);
    const has = (key: string): boolean => context?.has(key) ?? this.#store.has(key);
    const ready = record.segments.filter(({ key }) => has(key));
    return {
      root: this.roots.spelled(record.root),
      files: record.files.length,
      tokens: ready.reduce((total, { tokens }) => total + tokens, 0),
      complete: ready.length === record.segments.length,
      ...(this.#attended.get(record.root) ?? nothingAttended),
      selection: session?.info.selection ?? "trainingFree",
    };
  }

  #activity(): Activity {
    const percent = this.downloads.percent;
    if (percent !== undefined) return { kind: "downloading", percent };
    if (this.#sessions.loading) return { kind: "loading" };
    if (this.chat.answering > 0) return { kind: "answering" };
    const { progress } = this.indexing;
    if (progress !== undefined) {
      const { tokensDone, tokensTotal, tokensPerSecond, secondsLeft } = progress;
      const done = tokensTotal > 0 ? Math.floor((100 * tokensDone) / tokensTotal) : 0;
      return { kind: "indexing", percent: done, tokensPerSecond, secondsLeft };
    }
    return this.completions.completing > 0 ? { kind: "completing" } : { kind: "idle" };
  }
}

function planned(session: Session | undefined): Pick<MemoryStatus, "engineBytes" | "plan" | "note"> {
  if (session === undefined) return {};
  const { plan } = session;
  return { engineBytes: plan.engineBytes, plan: describePlan(plan), note: planNote(plan) };
}
