import { expect, it } from "vitest";
import { prefillAll } from "../../../../engine/generation/prefill";
import type { PrefillResult } from "../../../../engine/native/addon";
import { ChunkBudget } from "../../../../engine/scheduler/budget";
import { Scheduler } from "../../../../engine/scheduler/scheduler";
import { CopyModel, Workshop } from "../../../support/copyModel";

it("reads what may change by commands of its own, so that one that is parked before that is never lost", async () => {
  const model = new CopyModel(new Workshop());
  const scheduler = new Scheduler(model, { waitingMax: 10 });
  const job = { kind: "ahead", signal: new AbortController().signal } as const;
  const ends = async (kept: number, at: number): Promise<readonly number[]> => {
    const sequence = await model.createSequence({ basePosition: 0, attends: [] });
    await sequence.setTokens(new Uint32Array(100).fill(3));
    await sequence.prefill({ tokensMax: kept });
    const prefill = sequence.prefill.bind(sequence);
    const found: number[] = [];
    sequence.prefill = async (options): Promise<PrefillResult> => {
      const result = await prefill(options);
      found.push(result.computed);
      return result;
    };
    await prefillAll(scheduler, job, sequence, { budget: new ChunkBudget(300, 32), seam: { kept, at } });
    return found;
  };
  expect(await ends(0, 90)).toEqual([32, 64, 90, 100]);
  expect(await ends(40, 41)).toEqual([41, 73, 100]);
  expect(await ends(98, 96)).toEqual([100]);
  expect(await ends(96, 96)).toEqual([100]);
});
