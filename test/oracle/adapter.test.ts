/**
 * The adapters that come with the project, on the models they were trained for, against the known answers of their trainer:
 * another implementation, in Python and float32. A header, three segments and a tail, dense and by selection.
 * The default model is fetched; larger ones are compared where they are on the disk.
 */

import { existsSync, readFileSync } from "node:fs";
import * as path from "node:path";
import { expect, it } from "vitest";
import type { NativeModel, NativeSequence, SelectionPolicy } from "../../engine/native/addon";
import { loadAddon } from "../../engine/native/load";
import { modelFile, modelPath } from "../support/models";

interface Golden {
  readonly base_sha256: string;
  readonly parts: readonly { readonly start: number; readonly ids: readonly number[] }[];
  readonly tail: { readonly start: number; readonly ids: readonly number[] };
  readonly last_positions: number;
  readonly readings: readonly {
    readonly policy: SelectionPolicy;
    readonly total_blocks: number;
    readonly query_blocks: number;
    readonly window_blocks: number;
    /** [position][best][id, log-probability], of the tail's last positions. */
    readonly top: readonly (readonly (readonly [number, number])[])[];
    /** [layer][KV head]: blocks of the last position. */
    readonly chosen: readonly (readonly (readonly number[])[])[];
  }[];
}

const large = "qwen2.5-coder-1.5b-instruct";
const greedy = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };
const blockTokens = 64;

it("gives the trainer's answers, dense and by selection", { timeout: 600_000 }, () =>
  compare("qwen2.5-coder-0.5b-instruct"),
);

it.skipIf(!existsSync(modelPath(large)))("gives them on the 1.5B", { timeout: 900_000 }, () => compare(large));

async function compare(id: string): Promise<void> {
  const folder = path.resolve("adapters", id);
  const golden = JSON.parse(readFileSync(path.join(folder, "golden.json"), "utf8")) as Golden;
  const model = await loadAddon(path.resolve("dist/nosa.node")).openModel({
    path: await modelFile(id),
    adapter: path.join(folder, "adapter.safetensors"),
    baseSha256: golden.base_sha256,
    threads: 2,
    precision: "f32",
    kernels: "auto",
  });
  try {
    expect(model.info.selection).toBe("adapter");
    const context = await contextOf(model, golden);
    for (const reading of golden.readings) {
      const tail = await model.createSequence({ basePosition: golden.tail.start, attends: context });
      await tail.select({
        policy: reading.policy,
        totalBlocks: reading.total_blocks,
        queryBlocks: reading.query_blocks,
        sinkBlocks: 1,
        windowBlocks: reading.window_blocks,
        masked: [],
        pinned: [],
      });
      const known = golden.tail.ids.length - golden.last_positions + 1;
      await tail.setTokens(Uint32Array.from(golden.tail.ids.slice(0, known)));
      const { steps } = await tail.decode({
        steps: golden.last_positions,
        sampling: greedy,
        stopIds: [],
        top: 32,
        selections: true,
        teacher: Uint32Array.from([...golden.tail.ids.slice(known), 0]),
      });
      reading.top.forEach((best, position) => {
        const ours = new Map(steps[position]?.top ?? []);
        for (const [id, logprob] of best)
          expect(ours.get(id), `${reading.policy} ${position}: ${id}`).toBeCloseTo(logprob, 3);
      });
      const last = steps.at(-1)?.selections ?? [];
      if (reading.policy === "full") expect(last.every((blocks) => blocks.length === 0)).toBe(true);
      else expect(last).toEqual(reading.chosen.flat().map((blocks) => withoutFilling(blocks, golden)));
    }
  } finally {
    await model.dispose();
  }
}

async function contextOf(model: NativeModel, golden: Golden): Promise<NativeSequence[]> {
  const context: NativeSequence[] = [];
  for (const { start, ids } of golden.parts) {
    const part = await model.createSequence({ basePosition: start, attends: context.slice(0, 1) });
    await part.setTokens(Uint32Array.from(ids));
    await part.prefill({ tokensMax: ids.length });
    context.push(part);
  }
  return context;
}

/** The trainer fills its context up to a whole number of tiles of two blocks; the tail's blocks come after them. */
function withoutFilling(blocks: readonly number[], golden: Golden): number[] {
  const real = golden.parts.reduce((sum, { ids }) => sum + Math.ceil(ids.length / blockTokens), 0);
  const filled = Math.ceil(real / 2) * 2;
  return blocks.map((block) => (block < real ? block : block - filled + real));
}
