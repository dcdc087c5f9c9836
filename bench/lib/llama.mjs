// llama.cpp, as node-llama-cpp ships it: what a user would run instead. Same file, same threads, its own defaults.
import { getLlama } from "node-llama-cpp";

/** Opens `modelPath` with `threads` threads and room for `contextTokens`. */
export async function openLlama(modelPath, { threads, contextTokens }) {
  const llama = await getLlama({ gpu: false, build: "never", maxThreads: threads, logLevel: "error" });
  const model = await llama.loadModel({ modelPath });
  const context = await model.createContext({ contextSize: contextTokens, threads: { ideal: threads, min: threads } });
  const sequence = context.getSequence();
  return {
    tokenize: (text) => model.tokenize(text),

    /** Milliseconds to process `tokens` as a fresh prompt. */
    async prefill(tokens) {
      await sequence.clearHistory();
      const start = performance.now();
      await sequence.evaluateWithoutGeneratingNewTokens([...tokens]);
      return performance.now() - start;
    },

    /** Milliseconds a token of greedy decoding after the prompt that was prefilled, over `steps` tokens; the first is not timed. */
    async decode(lastToken, steps) {
      let start = 0;
      let count = 0;
      for await (const _ of sequence.evaluate([lastToken], { temperature: 0, yieldEogToken: true })) {
        if (start === 0) start = performance.now();
        else count += 1;
        if (count === steps) break;
      }
      return (performance.now() - start) / count;
    },

    async dispose() {
      await context.dispose();
      await model.dispose();
      await llama.dispose();
    },
  };
}
