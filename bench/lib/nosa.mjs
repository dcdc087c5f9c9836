// Our native engine, driven the way bench/lib/llama.mjs drives llama.cpp.
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const addonPath = fileURLToPath(new URL("../../dist/nosa.node", import.meta.url));
const greedy = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };

/** Opens `modelPath` with `threads` threads. */
export async function openNosa(modelPath, { threads }) {
  const addon = createRequire(import.meta.url)(addonPath);
  const model = await addon.openModel({ path: modelPath, threads, precision: "fast", kernels: "auto" });
  let sequence = await model.createSequence({ basePosition: 0, attends: [] });
  return {
    info: model.info,

    /** Milliseconds to process `tokens` as a fresh prompt in one causal sequence. */
    async prefill(tokens) {
      await sequence.dispose();
      sequence = await model.createSequence({ basePosition: 0, attends: [] });
      const start = performance.now();
      await sequence.setTokens(Uint32Array.from(tokens));
      await finish(sequence);
      return performance.now() - start;
    },

    /** Milliseconds a token of greedy decoding after the prompt that was prefilled, over `steps` tokens; the first is not timed. */
    async decode(lastToken, steps) {
      const forced = { steps: 1, sampling: greedy, stopIds: [], teacher: Uint32Array.of(lastToken) };
      await sequence.decode(forced);
      await sequence.decode({ steps: 1, sampling: greedy, stopIds: [] });
      const start = performance.now();
      for (let done = 0; done < steps; done += 1) await sequence.decode({ steps: 1, sampling: greedy, stopIds: [] });
      return (performance.now() - start) / steps;
    },

    /** Milliseconds to prefill `header` once and every segment after it alone, as indexing does. */
    async prefillSegments(header, segments) {
      const start = performance.now();
      const head = await model.createSequence({ basePosition: 0, attends: [] });
      await head.setTokens(Uint32Array.from(header));
      await finish(head);
      const done = [];
      for (const tokens of segments) {
        const segment = await model.createSequence({ basePosition: header.length, attends: [head] });
        await segment.setTokens(Uint32Array.from(tokens));
        await finish(segment);
        done.push(segment);
      }
      const millis = performance.now() - start;
      for (const each of [...done, head]) await each.dispose();
      return millis;
    },

    async dispose() {
      await model.dispose();
    },
  };
}

async function finish(sequence) {
  for (;;) {
    const { done } = await sequence.prefill({ tokensMax: 4096 });
    if (done) return;
  }
}
