// llama.cpp with a long prompt behind it: prefilled once, its state kept in the benchmarks' cache folder.
//
//   node bench/lib/llamaState.mjs MODEL.gguf [THREADS]     makes the state ahead of a benchmark
import { createHash } from "node:crypto";
import { existsSync, renameSync, rmSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { getLlama } from "node-llama-cpp";
import { cacheFolder } from "./cacheFolder.mjs";
import { corpus, joinedText } from "./corpus.mjs";
import { repeatState } from "./llamaRepeat.mjs";

/** Tokens that are prefilled and kept. */
export const stateTokens = 32_768;
/** Room behind them, for what is measured there. */
const roomTokens = 1_024;
const pieceTokens = 4_096;
const probeTokens = 256;
const decodeSteps = 16;

/** Opens `modelPath` with `stateTokens` tokens of real code behind it, prefilling them where no earlier run has. */
export async function openLlamaState(
  modelPath,
  { threads, tokens = stateTokens, repeat = false, onNotice = () => undefined },
) {
  const llama = await getLlama({ gpu: false, build: "never", maxThreads: threads, logLevel: "error" });
  const model = await llama.loadModel({ modelPath });
  const context = await model.createContext({
    contextSize: tokens + roomTokens,
    threads: { ideal: threads, min: threads },
  });
  const sequence = context.getSequence();
  const prompt = model
    .tokenize(joinedText(corpus(stateTokens * 1.05, (part) => model.tokenize(part).length)))
    .slice(0, tokens);
  if (prompt.length < tokens) throw new Error("There is not enough code to prefill.");
  const fileOf = (length) => {
    const name = `${path.basename(modelPath)}-${length}-${digest(prompt.slice(0, length))}.state`;
    return path.join(cacheFolder("llama-state"), name);
  };
  const isWhole = existsSync(fileOf(tokens));
  if (repeat && !isWhole) await fillByRepeating(sequence, prompt, fileOf);
  else await fill(sequence, prompt, fileOf, onNotice);

  return {
    /** Whether what stands behind it is one prompt, and not a shorter one over and over. */
    isReal: isWhole || !repeat,

    /**
     * At `position` tokens (descending from call to call, as what lies behind is dropped): milliseconds a token to process a prompt of 256 tokens there,
     * and milliseconds a step of greedy decoding there.
     */
    async measureAt(position) {
      await sequence.eraseContextTokenRanges([{ start: position, end: sequence.nextTokenIndex }]);
      const probe = prompt.slice(0, probeTokens);
      const prefillStart = performance.now();
      await sequence.evaluateWithoutGeneratingNewTokens(probe);
      const prefill = (performance.now() - prefillStart) / probe.length;
      let start = 0;
      let steps = 0;
      for await (const _ of sequence.evaluate([prompt[probeTokens]], { temperature: 0, yieldEogToken: true })) {
        if (start === 0) start = performance.now();
        else steps += 1;
        if (steps === decodeSteps) break;
      }
      const decode = (performance.now() - start) / steps;
      await sequence.eraseContextTokenRanges([{ start: position, end: sequence.nextTokenIndex }]);
      return { position, prefill, decode };
    },

    async dispose() {
      await context.dispose();
      await model.dispose();
      await llama.dispose();
    },
  };
}

/** Goes on from the longest state that is kept; a state is kept on the way, so that a run that is stopped loses little. */
async function fill(sequence, prompt, fileOf, onNotice) {
  let done = prompt.length;
  while (done > 0 && !existsSync(fileOf(done))) done -= Math.min(done, pieceTokens);
  if (done > 0) await sequence.loadStateFromFile(fileOf(done), { acceptRisk: true });
  if (done < prompt.length)
    onNotice(`Prefilling ${prompt.length} tokens with llama.cpp, once: kept in ${fileOf(prompt.length)}.`);
  while (done < prompt.length) {
    const next = Math.min(prompt.length, done + pieceTokens);
    await sequence.evaluateWithoutGeneratingNewTokens(prompt.slice(done, next));
    await sequence.saveStateToFile(`${fileOf(next)}.part`);
    renameSync(`${fileOf(next)}.part`, fileOf(next));
    // Half of it serves where there is no time for the whole.
    if (done > 0 && done !== stateTokens / 2) rmSync(fileOf(done), { force: true });
    done = next;
  }
}

/** The longest beginning of the prompt that is kept and fits into it, over and over (llamaRepeat.mjs). */
async function fillByRepeating(sequence, prompt, fileOf) {
  let times = 2;
  while (prompt.length / times > pieceTokens && !existsSync(fileOf(prompt.length / times))) times *= 2;
  const piece = prompt.slice(0, prompt.length / times);
  const file = fileOf(piece.length);
  if (!existsSync(file)) {
    await sequence.evaluateWithoutGeneratingNewTokens(piece);
    await sequence.saveStateToFile(file);
    await sequence.clearHistory();
  }
  const repeated = `${fileOf(prompt.length)}.repeated`;
  repeatState(file, repeated, times);
  await sequence.loadStateFromFile(repeated, { acceptRisk: true });
  rmSync(repeated);
}

function digest(tokens) {
  return createHash("sha256").update(Uint32Array.from(tokens)).digest("hex").slice(0, 16);
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [modelPath, threads] = process.argv.slice(2);
  const state = await openLlamaState(path.resolve(modelPath), {
    // On a machine that is busy with other things one thread gets further than two that wait for each other.
    threads: Number(threads ?? 1),
    onNotice: (sentence) => console.error(sentence),
  });
  await state.dispose();
}
