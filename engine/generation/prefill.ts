/** Prefill of a whole sequence, a bounded command at a time. */

import type { NativeSequence } from "../native/addon";
import { ChunkBudget } from "../scheduler/budget";
import type { Job, Scheduler } from "../scheduler/scheduler";

/** Length of a prefill command; native code parks sooner when something more urgent comes. */
const prefillTargetMs = 500;

export interface PrefillOptions {
  readonly budget?: ChunkBudget;
  /** Told how many tokens are complete, after each command; the next one waits for it. */
  readonly onProgress?: (computed: number) => Promise<void> | void;
}

/** Computes what waits in `sequence`, in commands of bounded length. Gives the number of blocks read from disk for it. */
export async function prefillAll(
  scheduler: Scheduler,
  job: Job,
  sequence: NativeSequence,
  options: PrefillOptions = {},
): Promise<number> {
  const budget = options.budget ?? new ChunkBudget(prefillTargetMs);
  let before = -1;
  let blocksRead = 0;
  for (;;) {
    let startedAt = 0;
    const result = await scheduler.run(job, () => {
      startedAt = performance.now();
      return sequence.prefill({ tokensMax: budget.nextTokens() });
    });
    if (before >= 0 && !result.interrupted) budget.measured(result.computed - before, performance.now() - startedAt);
    before = result.computed;
    blocksRead += result.blocksRead;
    await options.onProgress?.(result.computed);
    if (result.done) return blocksRead;
  }
}
