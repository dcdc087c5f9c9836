/**
 * Numbers against llama.cpp: the same file, the same tokens, in the same run.
 *
 * llama.cpp attends without flash attention here, because that adds up values in 16 bits on a CPU, which is further
 * from the model's own numbers than anything that is compared.
 */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import * as path from "node:path";
import { getLlama, LlamaLogLevel, type Llama, type LlamaModel, type Token } from "node-llama-cpp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { DecodeStep, NativeAddon, NativeModel } from "../../engine/native/addon";
import { loadAddon } from "../../engine/native/load";
import { realCode } from "../support/corpus";
import { modelFile } from "../support/models";
import { random, testSeed } from "../support/random";
import { requantise, type Target } from "../support/requantise";

const positions = 512;
const clearMarginNats = 0.1;
const sameTopLeast = 0.99;
const divergenceMost = 0.01;
const continuationTokens = 32;
const samePromptsLeast = 8;
/** Ids compared one by one; the rest of the vocabulary counts as one. */
const topCompared = 1024;

const greedy = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };
const seed = testSeed();

const prompts = [
  "def fibonacci(n):\n    if n <= 1:\n        return n\n    return",
  "# The days of the week\ndays = ['Monday', 'Tuesday', 'Wednesday',",
  "import os\nimport sys\n\ndef main():\n    if len(sys.argv) < 2:\n        print('usage:",
  "function add(a, b) {\n  return a + b;\n}\n\nfunction subtract(a, b) {\n  return a - b;\n}\n\nfunction multiply(",
  "The months of the year are January, February, March, April,",
  "1, 2, 3, 4, 5, 6, 7, 8, 9, 10,",
  "#include <stdio.h>\n\nint main(void) {\n    printf(",
  "SELECT name, age FROM users WHERE age > 18 ORDER BY",
  "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):\n        self.items.append(item)\n\n    def pop(self):",
  "<!DOCTYPE html>\n<html>\n<head>\n  <title>Hello</title>\n</head>\n<body>\n",
] as const;

let llama: Llama;
let addon: NativeAddon;
let folder: string;

beforeAll(async () => {
  llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.error, maxThreads: 2 });
  addon = loadAddon(path.resolve("dist/nosa.node"));
  folder = await mkdtemp(path.join(tmpdir(), "nosa-oracle-"));
});

afterAll(async () => {
  await llama.dispose();
  await rm(folder, { recursive: true, force: true });
});

const quick = "smollm2-135m-instruct";
const small = "qwen2.5-coder-0.5b-instruct";

async function requantised(id: string, target: Target): Promise<string> {
  const file = path.join(folder, `${id}-${target}.gguf`);
  requantise(await modelFile(id), file, target);
  return file;
}

/**
 * The goals (same top-1, greedy text) hold for the default model in all three formats. Of the quick model only the
 * divergence is held to its goal: it is so small that rounding moves its answers by a KL of 0.003 to 0.004, in llama.cpp
 * as much as in ours (llama.cpp with flash attention is 0.0035 from llama.cpp without), and so do top-1 and greedy text:
 * 480 of 486 and 5 of 10 on the day this was written, without quantised activations on our side. Its figures are printed.
 */
const files = [
  { name: "Q4_K_M", precision: "fast", goals: true, open: () => modelFile(small) },
  { name: "Q8_0", precision: "fast", goals: true, open: () => requantised(small, "Q8_0") },
  { name: "Q4_1", precision: "fast", goals: true, open: () => requantised(small, "Q4_1") },
  { name: "Q4_1 of the quick model", precision: "f32", goals: false, open: () => modelFile(quick) },
] as const;

describe.each(files)("$name", ({ precision, goals, open }) => {
  let oracle: LlamaModel;
  let model: NativeModel;

  beforeAll(async () => {
    const file = await open();
    oracle = await llama.loadModel({ modelPath: file });
    model = await addon.openModel({ path: file, threads: 2, precision, kernels: "auto" });
  });

  afterAll(async () => {
    await model.dispose();
    await oracle.dispose();
  });

  it(`agrees over ${positions} positions of real code`, async () => {
    const tokens = oracle.tokenize(realCode(random(seed), positions * 16), false).slice(0, positions);
    expect(tokens.length).toBe(positions);
    const ours = await forcedSteps(model, tokens);
    const theirs = await oracleSteps(oracle, tokens, ours);
    let clear = 0;
    let same = 0;
    let divergence = 0;
    theirs.forEach((step, index) => {
      divergence += step.divergence / positions;
      if (step.margin <= clearMarginNats) return;
      clear++;
      if (step.best === ours[index]?.top[0]?.[0]) same++;
    });
    console.log(`same top-1 at ${same} of ${clear} clear positions, mean KL ${divergence.toFixed(5)}`);
    expect(clear).toBeGreaterThan(positions / 2);
    if (goals) expect(same / clear).toBeGreaterThanOrEqual(sameTopLeast);
    expect(divergence).toBeLessThan(divergenceMost);
  });

  it.runIf(goals)(
    `goes on greedily as llama.cpp does for ${samePromptsLeast} of ${prompts.length} prompts`,
    async () => {
      let same = 0;
      for (const text of prompts) {
        const prompt = oracle.tokenize(text, false);
        const ours = await continuation(model, prompt);
        const theirs = await oracleContinuation(oracle, prompt);
        if (oracle.detokenize(ours) === oracle.detokenize(theirs)) same++;
        else console.log(JSON.stringify([text, oracle.detokenize(ours), oracle.detokenize(theirs)]));
      }
      console.log(`same first ${continuationTokens} tokens for ${same} of ${prompts.length} prompts`);
      expect(same).toBeGreaterThanOrEqual(samePromptsLeast);
    },
  );
});

/** What we say after each of the tokens. */
async function forcedSteps(model: NativeModel, tokens: readonly Token[]): Promise<readonly DecodeStep[]> {
  const sequence = await model.createSequence({ basePosition: 0, attends: [] });
  await sequence.setTokens(Uint32Array.from(tokens.slice(0, 1)));
  const steps: DecodeStep[] = [];
  while (steps.length < tokens.length) {
    const next = tokens.slice(steps.length + 1, steps.length + 33);
    // After the last token any will do: only what is said before it counts.
    const teacher = Uint32Array.from(next.length === 0 ? [0] : next);
    const result = await sequence.decode({
      steps: teacher.length,
      sampling: greedy,
      stopIds: [],
      top: topCompared,
      teacher,
    });
    steps.push(...result.steps);
  }
  await sequence.dispose();
  return steps;
}

interface OracleStep {
  readonly best: number;
  /** Between its two best, in nats. */
  readonly margin: number;
  /** KL of our answer from its answer, in nats. */
  readonly divergence: number;
}

async function oracleSteps(
  oracle: LlamaModel,
  tokens: readonly Token[],
  ours: readonly DecodeStep[],
): Promise<OracleStep[]> {
  const context = await oracle.createContext({ contextSize: positions + 8, threads: 2, flashAttention: false });
  const sequence = context.getSequence();
  const outputs = await sequence.controlledEvaluate(
    tokens.map((token, index) => [
      token,
      {
        generateNext: {
          logits: { filter: { tokens: (ours[index]?.top ?? []).map(([id]) => id as Token), includeTop: 2 } },
          totalLogitWeight: true,
        },
      },
    ]),
  );
  const steps = outputs.map((output, index) => {
    const next = output?.next;
    if (next?.logits === undefined || next.totalLogitWeight === undefined) throw new Error("No logits.");
    return compare(next.logits, next.totalLogitWeight, ours[index]?.top ?? []);
  });
  await context.dispose();
  return steps;
}

function compare(logits: Map<Token, number>, totalWeight: number, top: DecodeStep["top"]): OracleStep {
  const [first, second] = [...logits].sort((a, b) => b[1] - a[1]);
  if (first === undefined || second === undefined) throw new Error("No logits.");
  const logTotal = first[1] + Math.log(totalWeight);
  let divergence = 0;
  let theirRest = 1;
  let ourRest = 1;
  for (const [id, logprob] of top) {
    const theirs = (logits.get(id as Token) ?? -Infinity) - logTotal;
    divergence += Math.exp(theirs) * (theirs - logprob);
    theirRest -= Math.exp(theirs);
    ourRest -= Math.exp(logprob);
  }
  if (theirRest > 1e-6) divergence += theirRest * Math.log(theirRest / Math.max(ourRest, 1e-6));
  return { best: first[0], margin: first[1] - second[1], divergence };
}

async function continuation(model: NativeModel, prompt: readonly Token[]): Promise<Token[]> {
  const sequence = await model.createSequence({ basePosition: 0, attends: [] });
  await sequence.setTokens(Uint32Array.from(prompt));
  const { steps } = await sequence.decode({ steps: continuationTokens, sampling: greedy, stopIds: [] });
  await sequence.dispose();
  return steps.map((step) => step.token as Token);
}

async function oracleContinuation(oracle: LlamaModel, prompt: readonly Token[]): Promise<Token[]> {
  const context = await oracle.createContext({
    contextSize: prompt.length + continuationTokens + 8,
    threads: 2,
    flashAttention: false,
  });
  const sequence = context.getSequence();
  const tokens: Token[] = [];
  let input: Token[] = [...prompt];
  while (tokens.length < continuationTokens) {
    const outputs = await sequence.controlledEvaluate(
      input.map((token, index) =>
        index === input.length - 1
          ? [token, { generateNext: { logits: { filter: { tokens: [], includeTop: 1 } } } }]
          : token,
      ),
    );
    const best = outputs.at(-1)?.next.logits?.keys().next().value;
    if (best === undefined) throw new Error("No token.");
    tokens.push(best);
    input = [best];
  }
  await context.dispose();
  return tokens;
}
