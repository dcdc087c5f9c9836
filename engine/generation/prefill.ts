/** Prefill of a whole sequence, a bounded command at a time. */

import type { NativeSequence } from "../native/addon";
import { ChunkBudget } from "../scheduler/budget";
import type { Job, Scheduler } from "../scheduler/scheduler";

/** Length of a prefill command; native code parks sooner when something more urgent comes. */
const prefillTargetMs = 500;

export interface PrefillOptions {
  readonly budget?: ChunkBudget;
  /**
   * Of the sequence `kept` tokens are computed. No command computes tokens on both sides of the first `at`: what is behind them may change, and a command that
   * was parked is resumed only as long as none of its tokens does.
   */
  readonly seam?: { readonly kept: number; readonly at: number };
  /** Told how many tokens are complete, after each command; the next one waits for it. */
  readonly onProgress?: (computed: number) => Promise<void> | void;
}

/** Blocks of one layer and KV head that were moved for it: from disk, and from host memory to a GPU. */
export interface Moved {
  readonly blocksRead: number;
  readonly blocksFetched: number;
}

/** Computes what waits in `sequence`, in commands of bounded length. */
export async function prefillAll(
  scheduler: Scheduler,
  job: Job,
  sequence: NativeSequence,
  options: PrefillOptions = {},
): Promise<Moved> {
  const { seam } = options;
  const budget = options.budget ?? new ChunkBudget(prefillTargetMs);
  let before = -1;
  let [blocksRead, blocksFetched] = [0, 0];
  for (;;) {
    let startedAt = 0;
    const toSeam = seam === undefined ? Infinity : seam.at - Math.max(before, seam.kept);
    const result = await scheduler.run(job, () => {
      startedAt = performance.now();
      const tokensMax = budget.nextTokens();
      return sequence.prefill({ tokensMax: toSeam > 0 ? Math.min(tokensMax, toSeam) : tokensMax });
    });
    // The few tokens behind a seam take longer each.
    const isMeasured = before >= 0 && toSeam > 0 && !result.interrupted;
    if (isMeasured) budget.measured(result.computed - before, performance.now() - startedAt);
    before = result.computed;
    blocksRead += result.blocksRead;
    blocksFetched += result.blocksFetched;
    await options.onProgress?.(result.computed);
    if (result.done) return { blocksRead, blocksFetched };
  }
}
