// A repository's context in this process: the product's own tokens, segments and prompts over the native addon, with no engine between.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import path from "node:path";
import { cacheFolder } from "./cacheFolder.mjs";
import { product } from "./product.mjs";

const dist = fileURLToPath(new URL("../../dist/", import.meta.url));
const adapters = process.env.NOSA_BENCH_ADAPTERS ?? path.join(dist, "adapters");
const addonPath = process.env.NOSA_BENCH_ADDON ?? path.join(dist, "nosa.node");
/** Path of the CUDA part, where contexts are to be computed on a GPU: NOSA_BENCH_CUDA. */
export const cudaLibrary = process.env.NOSA_BENCH_CUDA;
const engineSegments = path.join(product.dataPaths(cacheFolder("home")).contexts, "segments");
export const greedy = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };

/** The product's budget, and the same with one of the other policies. */
export const selections = {
  nosa: { ...product.selectionBudget, masked: [], pinned: [] },
  infllmv2: { ...product.selectionBudget, policy: "infllmv2", masked: [], pinned: [] },
};

/**
 * Opens a model with its tokenizer, and with its adapter unless `plain`. `options` are the addon's own beside path, threads, precision, kernels and
 * adapter.
 */
export async function openModel(file, { threads, segmentTokensMax, plain = false, ...options }) {
  const addon = createRequire(import.meta.url)(addonPath);
  const adapter = plain ? {} : await adapterOf(file);
  const native = await addon.openModel({
    path: file,
    threads,
    precision: "fast",
    kernels: "auto",
    ...adapter,
    ...(cudaLibrary === undefined ? {} : { cudaLibrary }),
    ...options,
  });
  const { device, gpuProblem = "" } = native.info;
  // Figures of the cores must not pass for those of a GPU.
  if (cudaLibrary !== undefined && gpuProblem !== "") throw new Error(`The GPU is not used: ${gpuProblem}`);
  const tokenizer = await product.Tokenizer.open(file, {
    addonPath,
    workerPath: path.join(dist, "tokenizerWorker.js"),
  });
  const text = product.modelText(tokenizer, native.info.completionOrder);
  return {
    file,
    native,
    info: native.info,
    device,
    text,
    tokenizer,
    segmentTokensMax: Math.min(segmentTokensMax ?? 8192, native.info.contextLength / 2),
    encode: async (words) => (await tokenizer.encode([{ text: words, special: false }]))[0],
    decode(ids) {
      const stream = text.decodeStream();
      return ids.map((id) => stream.push(id)).join("") + stream.end();
    },
    async dispose() {
      await native.dispose();
      await text.dispose();
    },
  };
}

/**
 * Reads `files` ([{path, text}]) as repository `name`. `layout` is "segments" (the product's), "sequence" (one causal text) or "none" (the header
 * alone). KV is kept in the benchmarks' cache and loaded from there. `onTokens` hears of every token that had to be computed.
 * `pool`, a Map, holds header and segments by key from one state of a repository to the next: what a context shares with the last one is in memory already,
 * what it has not is disposed of; whoever made the pool disposes of the rest (emptyPool).
 */
export async function openContext(
  model,
  { name, files, layout = "segments", keep = true, onTokens = () => undefined, pool },
) {
  const { header, tokenized, plans, tokens, keyOf } = await planOf(model, { name, files });
  const used = new Map();
  const read = async (ids, options, contentKey) => {
    const key = keyOf(contentKey);
    used.set(key, pool?.get(key) ?? (await readSequence(model, ids, options, { key, keep, onTokens })));
    return used.get(key);
  };

  if (layout === "sequence") {
    const all = product.joined([header, ...tokenized.flatMap((file) => [file.headerTokens, file.tokens])]);
    const whole = await read(all, { basePosition: 0, attends: [] }, `sequence ${digest(all)}`);
    return {
      model,
      tokens: all.length,
      plans: [],
      segments: [],
      /** A sequence that sees the repository, and what must stand before a request's own tokens in it. */
      async tail() {
        return { sequence: await whole.fork(), before: all };
      },
      selectionAsked: () => undefined,
      dispose: () => whole.dispose(),
    };
  }

  const head = await read(header, { basePosition: 0, attends: [] }, "");
  const segments = [];
  for (const plan of layout === "none" ? [] : plans) {
    segments.push(await read(plan.tokens, { basePosition: header.length, attends: [head] }, plan.contentKey));
  }
  if (pool !== undefined) {
    for (const [key, sequence] of pool) if (!used.has(key)) await sequence.dispose();
    pool.clear();
    for (const [key, sequence] of used) pool.set(key, sequence);
  }
  const basePosition = header.length + (layout === "none" ? 0 : model.segmentTokensMax);
  return {
    model,
    headerTokens: header.length,
    tokens: layout === "none" ? header.length : header.length + tokens,
    plans,
    segments,
    async tail() {
      const sequence = await model.native.createSequence({ basePosition, attends: [head, ...segments] });
      return { sequence, before: new Uint32Array() };
    },
    selectionAsked: productSelection(model, plans),
    async dispose() {
      if (pool === undefined) for (const sequence of [...segments, head]) await sequence.dispose();
    },
  };
}

/** Disposes of what contexts with this pool left in memory. */
export async function emptyPool(pool) {
  for (const sequence of [...pool.values()].reverse()) await sequence.dispose();
  pool.clear();
}

/**
 * Computes one share of the segments that openContext() would, and saves those that are not saved yet: so processes read repositories side by side. Share `at`
 * is this process's; `loads` are the tokens that each share has so far, and grow: every process deals the same repositories in the same order. They go into
 * `folder`; an engine whose own that is takes them as read. Gives tokens computed.
 */
export async function readShare(model, { name, files }, { at, loads, folder }) {
  const { header, plans, keyOf } = await planOf(model, { name, files });
  const fileOf = (contentKey) => path.join(folder, `${keyOf(contentKey)}.kv`);
  const missing = dealt(plans, loads)[at].filter(({ contentKey }) => !existsSync(fileOf(contentKey)));
  if (missing.length === 0) return 0;
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const head = await computed(model, header, { basePosition: 0, attends: [] });
  // One of those who compute it keeps it.
  if (at === 0) await head.save({ path: fileOf(""), key: keyOf("") });
  let tokens = 0;
  for (const plan of missing) {
    const sequence = await computed(model, plan.tokens, { basePosition: header.length, attends: [head] });
    await sequence.save({ path: fileOf(plan.contentKey), key: keyOf(plan.contentKey) });
    await sequence.dispose();
    tokens += plan.tokens.length;
  }
  await head.dispose();
  return tokens;
}

/**
 * Computes `count` of the saved segments anew, and how far apart what follows is: absolute differences of the log-probabilities of 96 tokens behind either.
 * For segments that another machine, or a GPU, computed. Gives `{segments, tokens, differences}`.
 */
export async function compareShare(model, { name, files }, { count, folder }) {
  const { header, plans, keyOf } = await planOf(model, { name, files });
  const fileOf = (contentKey) => path.join(folder, `${keyOf(contentKey)}.kv`);
  const saved = plans.filter(({ contentKey }) => existsSync(fileOf(contentKey)));
  const step = Math.max(1, Math.floor(saved.length / count));
  const head = await computed(model, header, { basePosition: 0, attends: [] });
  const result = { segments: 0, tokens: 0, differences: [] };
  for (let at = 0; at < saved.length && result.segments < count; at += step) {
    const { contentKey, tokens } = saved[at];
    const behind = plans[(plans.indexOf(saved[at]) + 1) % plans.length].tokens.slice(0, 97);
    const either = [];
    const options = { basePosition: header.length, attends: [head] };
    for (const open of [
      () => loaded(model, { path: fileOf(contentKey), key: keyOf(contentKey) }, options),
      () => computed(model, tokens, options),
    ]) {
      const segment = await open();
      const basePosition = header.length + model.segmentTokensMax;
      const tail = await model.native.createSequence({ basePosition, attends: [head, segment] });
      await tail.setTokens(behind);
      either.push((await tail.score({ from: 1 })).logprobs);
      for (const each of [tail, segment]) await each.dispose();
    }
    const [theirs, ours] = either;
    result.differences.push(...[...theirs].map((each, index) => Math.abs(each - ours[index])));
    result.segments += 1;
    result.tokens += tokens.length;
  }
  await head.dispose();
  return result;
}

/** Prefills all that waits in `sequence`. */
export async function finish(sequence) {
  for (;;) {
    const { done } = await sequence.prefill({ tokensMax: 4096 });
    if (done) return;
  }
}

/** What the product's chat tells a tail of a question: its budget, and the blocks that hold what the question names. */
function productSelection(model, plans) {
  const segments = plans.map(({ contentKey: key, blockLines }) => ({ key, blockLines }));
  let texts;
  return (question) => {
    texts ??= plans.map(({ contentKey: key, tokens }) => ({
      key,
      text: new product.SegmentText(tokens, model.text.tokenBytes, model.info.blockTokens),
    }));
    const named = product.blocksNamed(product.namesAskedFor([{ role: "user", content: question }]), texts);
    return product.selectionFor(segments, { ...product.noFocus, named });
  };
}

/** The adapter that the product would load, as options of the addon. */
async function adapterOf(file) {
  const note = `${file}.verified.json`;
  if (!existsSync(note)) return {};
  const { sha256 } = JSON.parse(readFileSync(note, "utf8"));
  const adapter = await product.adapterFor(adapters, sha256);
  return adapter === undefined ? {} : { adapter, baseSha256: sha256 };
}

/** The product's tokens and segments of a repository: `{header, tokenized, plans, tokens, keyOf(contentKey)}`. */
async function planOf(model, { name, files }) {
  const header = await model.text.header(name);
  const never = new AbortController().signal;
  const tokenized = [];
  for (const file of files) tokenized.push(await model.text.file(file.path, file.text, never));
  tokenized.sort((a, b) => (a.path < b.path ? -1 : 1));
  const plans = product.planSegments(tokenized, {
    segmentTokensMax: model.segmentTokensMax,
    blockTokens: model.info.blockTokens,
    lines: model.text.lines,
  });
  const identity = {
    fingerprint: model.info.fingerprint,
    headerTokens: header,
    segmentPositions: model.segmentTokensMax,
    policy: "full",
  };
  return {
    header,
    tokenized,
    plans,
    tokens: plans.reduce((sum, plan) => sum + plan.tokens.length, 0),
    keyOf: (contentKey) => product.segmentKey(identity, contentKey),
  };
}

/** Plans by share: the longest first, each to the share that has the fewest tokens. */
function dealt(plans, loads) {
  const shares = loads.map(() => []);
  for (const plan of [...plans].sort((a, b) => b.tokens.length - a.tokens.length)) {
    const least = loads.indexOf(Math.min(...loads));
    loads[least] += plan.tokens.length;
    shares[least].push(plan);
  }
  return shares;
}

/** A sequence of `ids`, prefilled. `options` are the addon's. */
async function computed(model, ids, options) {
  const sequence = await model.native.createSequence(options);
  await sequence.setTokens(ids);
  await finish(sequence);
  return sequence;
}

/** A saved one. */
async function loaded(model, file, options) {
  const sequence = await model.native.createSequence(options);
  await sequence.load(file);
  return sequence;
}

async function readSequence(model, ids, options, { key, keep, onTokens }) {
  const file = path.join(cacheFolder("kv"), `${key}.kv`);
  // What an engine under measurement has read serves as well: same key, same KV.
  const saved = [file, path.join(engineSegments, `${key}.kv`)].find((each) => existsSync(each));
  if (keep && saved !== undefined) return loaded(model, { path: saved, key }, options);
  const sequence = await computed(model, ids, options);
  onTokens(ids.length);
  if (keep) await sequence.save({ path: file, key });
  return sequence;
}

function digest(ids) {
  return createHash("sha256")
    .update(Buffer.from(ids.buffer, ids.byteOffset, ids.byteLength))
    .digest("hex");
}
