/**
 * KV in and out of files, for one model: native code writes and reads them, the store says where and knows what is there.
 * What does not check out is set aside, and whoever asked for it computes it again.
 */

import { codeOf, EngineError } from "../errors";
import type { Log } from "../log";
import type { NativeSequence, SequenceOptions } from "../native/addon";
import type { Job, Scheduler } from "../scheduler/scheduler";
import type { ContextStore } from "./store";
import { free } from "./tails";

export interface SavedKvOptions {
  readonly scheduler: Scheduler;
  readonly store: ContextStore;
  readonly log: Log;
  /** What a token takes in a file. */
  readonly bytesPerToken: number;
}

/** A file cannot be used because of itself; anything else is a reason to stop. */
const unusable = new Set(["corrupt", "invalidArgument", "notFound", "io", "unsupported"]);

export class SavedKv {
  readonly #options: SavedKvOptions;

  constructor(options: SavedKvOptions) {
    this.#options = options;
  }

  /** Undefined when nothing is saved under `key` or it does not check out. */
  async load(job: Job, key: string, options: SequenceOptions): Promise<NativeSequence | undefined> {
    const { scheduler, store } = this.#options;
    if (!store.has(key)) return undefined;
    const sequence = await scheduler.upkeep((model) => model.createSequence(options));
    try {
      if (await this.loadInto(job, sequence, key)) return sequence;
    } catch (error) {
      free(scheduler, sequence);
      throw error;
    }
    free(scheduler, sequence);
    return undefined;
  }

  /** False when the file does not check out; it is then set aside. */
  async loadInto(job: Job, sequence: NativeSequence, key: string): Promise<boolean> {
    const { scheduler, store, log } = this.#options;
    try {
      await scheduler.run(job, () => sequence.load({ path: store.pathOf(key), key }));
      return true;
    } catch (error) {
      if (!unusable.has(codeOf(error))) throw error;
      log.warn(`Segment ${key} does not check out (${codeOf(error)})`);
      await store.setAside(key);
      return false;
    }
  }

  /** Takes over what a run that was stopped, by whatever, had computed of `key`; gives how many tokens that is. */
  async resume(job: Job, key: string, sequence: NativeSequence): Promise<number> {
    const { scheduler, store, log } = this.#options;
    if (store.partBytesOf(key) === 0) return 0;
    try {
      const { tokens } = await scheduler.run(job, () => sequence.resume({ path: store.pathOf(key), key }));
      return tokens;
    } catch (error) {
      if (!unusable.has(codeOf(error))) throw error;
      log.warn(`The part of segment ${key} does not check out (${codeOf(error)})`);
      await store.dropPart(key);
      return 0;
    }
  }

  /** Saves what is computed so far. That there is no room for it is told when the whole is saved. */
  async checkpoint(job: Job, key: string, sequence: NativeSequence): Promise<void> {
    const { scheduler, store, log, bytesPerToken } = this.#options;
    // The books are kept where the file is written: one that a cancelled job wrote must be found by who forgets it.
    const write = async (): Promise<void> => {
      const { tokens } = await sequence.checkpoint({ path: store.pathOf(key), key });
      if (tokens > 0) store.savedPart(key, tokens * bytesPerToken);
    };
    try {
      await scheduler.run(job, write);
    } catch (error) {
      if (codeOf(error) !== "noSpace" && codeOf(error) !== "io") throw error;
      log.info(`A part of segment ${key} could not be saved (${codeOf(error)})`);
      await store.dropPart(key);
    }
  }

  /** Makes room within the disk budget first. Rejects with `noSpace` when there is none to make. */
  async save(job: Job, key: string, sequence: NativeSequence, tokens: number): Promise<void> {
    const { scheduler, store, bytesPerToken } = this.#options;
    if (!(await store.makeRoom(tokens * bytesPerToken - store.partBytesOf(key)))) throw budgetUsedUp(store.bytesMax);
    const path = store.pathOf(key);
    const write = (): Promise<void> =>
      scheduler.run(job, async () => {
        const { bytes } = await sequence.save({ path, key });
        store.saved(key, bytes);
      });
    try {
      await write();
    } catch (error) {
      if (codeOf(error) !== "noSpace") throw error;
      // The disk is fuller than the budget thinks. What no record names goes; the second failure is the user's to hear of.
      if ((await store.removeOrphans()) === 0) throw diskFull(error);
      await write().catch((second: unknown) => {
        throw codeOf(second) === "noSpace" ? diskFull(second) : second;
      });
    }
  }
}

function diskFull(cause: unknown): EngineError {
  return new EngineError(
    "noSpace",
    "The disk is full: free some space, or forget a repository, and index again; what was read so far is kept.",
    { cause },
  );
}

function budgetUsedUp(bytesMax: number): EngineError {
  return new EngineError(
    "noSpace",
    `The ${(bytesMax / 1e9).toFixed(1)} GB that Nosa may use of the disk are used up: raise nosa.diskGigabytes, or forget a repository, and index again; what was read so far is kept.`,
  );
}
