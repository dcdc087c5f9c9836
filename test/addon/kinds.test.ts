/** Tiny models of every kind of file, and arguments that no typed caller would send. */

import { writeFileSync } from "node:fs";
import * as path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { addon, codeOf, greedy, ids, openOptions, tinyModels, tinyVocabulary } from "../support/tinyModel";

const tiny = tinyModels();
const native = addon();
const file = path.join(tiny.folder, "qwen2-Q8_0.gguf");

afterAll(() => tiny.remove());

describe("models", () => {
  it("of every type and both families open and answer", async () => {
    const kinds = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"];
    const places = ["llama", "qwen2"].flatMap((family) => [
      ...kinds.map((kind) => `${family}-${kind}.gguf`),
      `${family}-bf16`,
      `${family}-f32-shards`,
    ]);
    for (const place of places) {
      const model = await native.openModel(openOptions(path.join(tiny.folder, place)));
      expect(model.info).toMatchObject({ vocabSize: tinyVocabulary, layers: 2, headDim: 64, blockTokens: 64 });
      const sequence = await model.createSequence({ basePosition: 0, attends: [] });
      await sequence.setTokens(ids(40));
      const { steps } = await sequence.decode(greedy(3, { top: 5 }));
      for (const { top, token, logprob } of steps) {
        expect(top[0]).toEqual([token, logprob]);
        expect(Number.isFinite(logprob) && logprob < 0).toBe(true);
      }
      await model.dispose();
    }
  });

  it("say where their ranking comes from, and choose by it", async () => {
    for (const [place, selection] of [
      ["llama-nosa", "native"],
      ["llama-bf16", "trainingFree"],
    ] as const) {
      const model = await native.openModel(openOptions(path.join(tiny.folder, place)));
      expect(model.info.selection).toBe(selection);
      const sequence = await model.createSequence({ basePosition: 0, attends: [] });
      const budget = { totalBlocks: 4, queryBlocks: 2, sinkBlocks: 1, windowBlocks: 1 };
      await sequence.select({ policy: "nosa", ...budget, masked: [], pinned: [] });
      await sequence.setTokens(ids(700));
      const { attendedBlocks, totalBlocks } = await sequence.decode(greedy(2));
      expect([attendedBlocks, totalBlocks]).toEqual([4, 11]);
      await model.dispose();
    }
  });

  it("show a completion first what their adapter was taught", async () => {
    const open = (metadata: Readonly<Record<string, string>>) => {
      const adapter = path.join(tiny.folder, "adapter.safetensors");
      writeFileSync(adapter, tinyAdapter(metadata));
      return native.openModel(openOptions(file, { adapter, baseSha256 }));
    };
    for (const [metadata, completionOrder] of [
      [{}, "prefix-first"],
      [{ completion_order: "prefix-first" }, "prefix-first"],
      [{ completion_order: "suffix-first" }, "suffix-first"],
    ] as const) {
      const model = await open(metadata);
      expect(model.info).toMatchObject({ selection: "adapter", completionOrder });
      await model.dispose();
    }
    const plain = await native.openModel(openOptions(file));
    expect(plain.info.completionOrder).toBe("prefix-first");
    await plain.dispose();
    const later = open({ completion_order: "middle-out" });
    expect(await codeOf(later)).toBe("unsupported");
    await expect(later).rejects.toThrow(/adapter\.safetensors was made for a newer Nosa/);
  });

  it("answer the same from safetensors in shards as from GGUF", async () => {
    const answers = [];
    for (const place of ["qwen2-F32.gguf", "qwen2-f32-shards"]) {
      const model = await native.openModel(openOptions(path.join(tiny.folder, place), { precision: "f32" }));
      const sequence = await model.createSequence({ basePosition: 0, attends: [] });
      await sequence.setTokens(ids(100));
      answers.push((await sequence.decode(greedy(8, { top: 4 }))).steps);
      await model.dispose();
    }
    expect(answers[1]).toEqual(answers[0]);
  });
});

describe("metadata", () => {
  it("comes with scalars and arrays", () => {
    const { scalars, arrays } = native.ggufMetadata(file);
    expect(scalars).toMatchObject({ "general.architecture": "qwen2", "qwen2.block_count": 2 });
    expect(arrays["tokenizer.ggml.tokens"]).toHaveLength(tinyVocabulary);
    expect(arrays["tokenizer.ggml.tokens"]?.[300]).toBe("t300é");
  });

  it("of the processor names the kernels that it can run", () => {
    const cpu = native.cpu();
    expect(cpu.kernels).toContain("auto");
    expect(cpu.kernels).toContain("generic");
    expect(native.version).toMatch(/^\d+\.\d+\.\d+$/);
  });
});

describe("arguments that make no sense", () => {
  it("reject with a sentence, whatever they are", async () => {
    const model = await native.openModel(openOptions(file));
    const sequence = await model.createSequence({ basePosition: 0, attends: [] });
    await sequence.setTokens(ids(5));
    const wild: readonly unknown[] = [undefined, null, 7, "text", [], {}, Symbol("s"), () => 1, NaN, -1, 2 ** 60];
    for (const value of wild) {
      // The seam's types forbid all of this; a caller without types may still try.
      const raw = value as never;
      for (const call of [
        () => native.openModel(raw),
        () => model.createSequence(raw),
        () => model.createSequence({ basePosition: raw, attends: [] }),
        () => model.createSequence({ basePosition: 0, attends: [raw] }),
        () => sequence.setTokens(raw),
        () => sequence.prefill(raw),
        () => sequence.prefill({ tokensMax: value === 7 ? raw : -1 }),
        () => sequence.decode(raw),
        () => sequence.decode({ ...greedy(1), sampling: raw }),
        () => sequence.decode({ ...greedy(1), stopIds: value === undefined || value === null ? (7 as never) : raw }),
        () => sequence.score({ from: raw }),
        () => sequence.save(raw),
        () => sequence.load({ path: raw, key: raw }),
      ]) {
        const code = await codeOf(call());
        expect(["resolved", "invalidArgument", "notFound"]).toContain(code);
      }
    }
    expect(await codeOf(model.createSequence({ basePosition: 1.5, attends: [] }))).toBe("invalidArgument");
    await model.dispose();
  });
});

const baseSha256 = "ab".repeat(32);

/** Eviction heads that say nothing, of the tiny models' shape, and no updates. */
function tinyAdapter(metadata: Readonly<Record<string, string>>): Uint8Array {
  const [layers, kvHeads, headDim] = [2, 2, 64];
  const header: Record<string, unknown> = {
    __metadata__: { format: "nosa-adapter-1", base_sha256: baseSha256, rank: "0", alpha: "0", ...metadata },
  };
  let bytes = 0;
  for (let layer = 0; layer < layers; layer += 1) {
    for (const [name, shape] of [
      ["A", [kvHeads]],
      ["delta.weight", [kvHeads, kvHeads * headDim]],
    ] as const) {
      const end = bytes + 4 * shape.reduce<number>((product, each) => product * each, 1);
      header[`model.layers.${layer}.self_attn.${name}`] = { dtype: "F32", shape, data_offsets: [bytes, end] };
      bytes = end;
    }
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, Buffer.alloc(bytes)]);
}
