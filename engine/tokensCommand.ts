/**
 * `npm run -s tokens`: token ids in, token ids out, with no tokenizer in between. For checking the numbers.
 *
 * Prints one JSON line, `{"tokens":[...],"steps":[{"top":[[id,logprob],...]}]}`: the greedy (or forced) continuation,
 * and the best ids at each of its steps. With `--selections` a file gets the blocks that each step attended to.
 */

import { readFileSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import * as path from "node:path";
import { parseArgs } from "node:util";
import { EngineError } from "./errors";
import { sha256Of } from "./models/files";
import type {
  DecodeStep,
  KernelChoice,
  ModelInfo,
  NativeAddon,
  OpenModelOptions,
  SelectionOptions,
} from "./native/addon";
import { loadAddon } from "./native/load";

const usage = `Usage:
  nosa tokens --model PATH --ids FILE --steps N [--top K] [--precision fast|f32] [--teacher FILE]
              [--threads N] [--kernels auto|generic|avx2|avx512|neon] [--adapter FILE]
              [--policy full|infllmv2|nosa] [--blocks N] [--query-blocks N] [--selections FILE]

  --model PATH    a GGUF file, or a folder with config.json and safetensors
  --ids FILE      a JSON array of token ids, the prompt
  --steps N       how many tokens to go on for
  --top K         best ids of each step, 1 unless told
  --teacher FILE  a JSON array of token ids: the continuation, forced
  --adapter FILE  a NOSA adapter for the model
  --policy P      which blocks of 64 tokens a query attends to: full (the default) is all of them
  --blocks N      most blocks that a query attends to, 64 unless told
  --query-blocks N  how many of them follow the query's ranking, 16 unless told
  --selections FILE  gets the ids of the blocks attended to, as JSON: [step][layer][KV head][block]
`;

/** The published constants of NOSA. */
const published: SelectionOptions = {
  policy: "full",
  totalBlocks: 64,
  queryBlocks: 16,
  sinkBlocks: 1,
  windowBlocks: 17,
  masked: [],
  pinned: [],
};
const policies = ["full", "infllmv2", "nosa"] as const;
const precisions = ["fast", "f32"] as const;
const kernelChoices: readonly KernelChoice[] = ["auto", "generic", "avx2", "avx512", "neon"];
const greedy = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };

export interface TokensRequest {
  readonly model: OpenModelOptions;
  readonly ids: Uint32Array;
  readonly steps: number;
  readonly top: number;
  readonly teacher: Uint32Array | undefined;
  readonly selection: SelectionOptions;
  /** Where the blocks that were attended to are written. */
  readonly selectionsFile: string | undefined;
}

export interface TokensAnswer {
  readonly tokens: readonly number[];
  readonly steps: readonly { readonly top: readonly (readonly [number, number])[] }[];
}

/** The command as the terminal runs it; gives the exit code. */
export async function runTokensCommand(words: readonly string[]): Promise<number> {
  const request = parseTokensRequest(words);
  const answer = await runTokens(loadAddon(path.join(__dirname, "nosa.node")), request);
  process.stdout.write(`${JSON.stringify(answer)}\n`);
  return 0;
}

/** One causal sequence, from the first token to the last. */
export async function runTokens(addon: NativeAddon, request: TokensRequest): Promise<TokensAnswer> {
  const model = await addon.openModel(await withBaseHash(request.model));
  try {
    const sequence = await model.createSequence({ basePosition: 0, attends: [] });
    await sequence.select(request.selection);
    await sequence.setTokens(request.ids);
    const { steps } = await sequence.decode({
      steps: request.steps,
      sampling: greedy,
      stopIds: [],
      top: request.top,
      selections: request.selectionsFile !== undefined,
      ...(request.teacher === undefined ? {} : { teacher: request.teacher }),
    });
    if (request.selectionsFile !== undefined) {
      const selections = steps.map((step, index) => blocksByLayer(step, request.ids.length + index, model.info));
      writeFileSync(request.selectionsFile, `${JSON.stringify(selections)}\n`);
    }
    return { tokens: steps.map((step) => step.token), steps: steps.map((step) => ({ top: step.top })) };
  } finally {
    await model.dispose();
  }
}

/** An adapter must name the model's hash, which nobody has written down for a file given by its path. */
async function withBaseHash(options: OpenModelOptions): Promise<OpenModelOptions> {
  if (options.adapter === undefined) return options;
  return { ...options, baseSha256: await sha256Of(options.path, new AbortController().signal) };
}

/** [layer][KV head][block]: what a step with `tokens` tokens behind it attended to. */
function blocksByLayer(step: DecodeStep, tokens: number, { layers, kvHeads, blockTokens }: ModelInfo): number[][][] {
  const all = Array.from({ length: Math.ceil(tokens / blockTokens) }, (_, block) => block);
  return Array.from({ length: layers }, (_layer, layer) =>
    step.selections
      .slice(layer * kvHeads, (layer + 1) * kvHeads)
      .map((blocks) => (blocks.length === 0 ? all : [...blocks])),
  );
}

/** Throws EngineError `badRequest` with a sentence for the user. */
export function parseTokensRequest(words: readonly string[]): TokensRequest {
  const values = parsed(words);
  if (values.model === undefined || values.ids === undefined || values.steps === undefined) throw bad(usage);
  const ids = readIds("--ids", values.ids);
  if (ids.length === 0) throw bad(`--ids: ${values.ids} holds no token.`);
  const teacher = values.teacher === undefined ? undefined : readIds("--teacher", values.teacher);
  const steps = whole("--steps", values.steps, 1);
  if (teacher !== undefined && teacher.length < steps) {
    throw bad(`--teacher: ${String(values.teacher)} holds ${teacher.length} tokens, fewer than --steps ${steps}.`);
  }
  return {
    model: {
      path: path.resolve(values.model),
      threads: values.threads === undefined ? availableParallelism() : whole("--threads", values.threads, 1),
      precision: choice("--precision", values.precision ?? "fast", precisions),
      kernels: choice("--kernels", values.kernels ?? "auto", kernelChoices),
      ...(values.adapter === undefined ? {} : { adapter: path.resolve(values.adapter) }),
    },
    ids,
    steps,
    top: values.top === undefined ? 1 : whole("--top", values.top, 0),
    teacher,
    selection: {
      ...published,
      policy: choice("--policy", values.policy ?? published.policy, policies),
      totalBlocks: values.blocks === undefined ? published.totalBlocks : whole("--blocks", values.blocks, 1),
      queryBlocks:
        values["query-blocks"] === undefined
          ? published.queryBlocks
          : whole("--query-blocks", values["query-blocks"], 0),
    },
    selectionsFile: values.selections,
  };
}

function parsed(words: readonly string[]) {
  const text = { type: "string" } as const;
  const options = {
    model: text,
    ids: text,
    steps: text,
    top: text,
    precision: text,
    teacher: text,
    threads: text,
    kernels: text,
    adapter: text,
    policy: text,
    blocks: text,
    "query-blocks": text,
    selections: text,
  };
  try {
    return parseArgs({ args: [...words], options, strict: true }).values;
  } catch (error) {
    throw bad(`${error instanceof Error ? error.message : String(error)}\n\n${usage}`);
  }
}

function readIds(name: string, file: string): Uint32Array {
  let ids: unknown;
  try {
    ids = JSON.parse(readFileSync(file, "utf8"));
  } catch (error) {
    throw bad(`${name}: ${file} cannot be read as JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (!Array.isArray(ids) || !ids.every(isTokenId)) throw bad(`${name}: ${file} must hold one array of token ids.`);
  return Uint32Array.from(ids);
}

function isTokenId(id: unknown): id is number {
  return Number.isInteger(id) && Number(id) >= 0 && Number(id) < 2 ** 32;
}

function whole(name: string, text: string, least: number): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= least) return value;
  throw bad(`${name} wants a whole number from ${least} on, not "${text}".`);
}

function choice<T extends string>(name: string, text: string, choices: readonly T[]): T {
  const found = choices.find((each) => each === text);
  if (found === undefined) throw bad(`${name} wants one of ${choices.join(", ")}, not "${text}".`);
  return found;
}

function bad(message: string): EngineError {
  return new EngineError("badRequest", message);
}
