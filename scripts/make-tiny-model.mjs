// Writes tiny models with random weights: GGUF files of every weight type, and safetensors folders of one file and of
// shards, of the Llama and the Qwen2 family. They answer nonsense, quickly: for tests, and for trying out the addon.
//
//   node scripts/make-tiny-model.mjs FOLDER [--seed N]
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { metadataValue, text, u32, u64 } from "./lib/ggufBytes.mjs";

/** Number in the file, values and bytes of a block. */
const types = {
  F32: { number: 0, values: 1, bytes: 4 },
  F16: { number: 1, values: 1, bytes: 2 },
  BF16: { number: 30, values: 1, bytes: 2 },
  Q4_0: { number: 2, values: 32, bytes: 18 },
  Q4_1: { number: 3, values: 32, bytes: 20 },
  Q5_0: { number: 6, values: 32, bytes: 22 },
  Q5_1: { number: 7, values: 32, bytes: 24 },
  Q8_0: { number: 8, values: 32, bytes: 34 },
  Q4_K: { number: 12, values: 256, bytes: 144 },
  Q5_K: { number: 13, values: 256, bytes: 176 },
  Q6_K: { number: 14, values: 256, bytes: 210 },
};

/** Where the f16 scales of a block lie, and how large its levels get beside them. */
const scales = {
  Q4_0: { at: [0], reach: 8 },
  Q4_1: { at: [0, 2], reach: 15 },
  Q5_0: { at: [0], reach: 16 },
  Q5_1: { at: [0, 2], reach: 31 },
  Q8_0: { at: [0], reach: 127 },
  Q4_K: { at: [0, 2], reach: 15 * 32 },
  Q5_K: { at: [0, 2], reach: 31 * 32 },
  Q6_K: { at: [208], reach: 32 * 64 },
};

export const weightTypes = Object.keys(types);
export const tinyVocabulary = 320;

const sizes = { layers: 2, embedding: 256, feedForward: 256, heads: 4, kvHeads: 2, headDim: 64, context: 4096 };
const endOfText = 256;
const theta = 10_000;
const epsilon = 1e-5;

/** One GGUF file. The same seed gives the same bytes. More layers make it slower. */
export function writeTinyGguf(file, options = {}) {
  const { architecture = "qwen2", type = "F32", seed = 1, context = sizes.context, layers = sizes.layers } = options;
  const random = randomOf(seed);
  const tensors = tensorsOf(architecture, layers).map((tensor) => ({
    ...tensor,
    type: tensor.rows === 1 ? "F32" : type,
    data: tensorData(tensor, tensor.rows === 1 ? "F32" : type, random),
  }));
  const metadata = [
    ["general.architecture", architecture],
    ["general.name", `Tiny ${architecture} ${type}`],
    [`${architecture}.block_count`, layers],
    [`${architecture}.embedding_length`, sizes.embedding],
    [`${architecture}.feed_forward_length`, sizes.feedForward],
    [`${architecture}.attention.head_count`, sizes.heads],
    [`${architecture}.attention.head_count_kv`, sizes.kvHeads],
    [`${architecture}.context_length`, context],
    [`${architecture}.attention.layer_norm_rms_epsilon`, { float: epsilon }],
    [`${architecture}.rope.freq_base`, { float: theta }],
    ["tokenizer.ggml.model", "gpt2"],
    ["tokenizer.ggml.pre", "qwen2"],
    ["tokenizer.ggml.tokens", tinyTokens()],
    ["tokenizer.ggml.merges", []],
    ["tokenizer.ggml.eos_token_id", endOfText],
  ];
  const head = [Buffer.from("GGUF"), u32(3), u64(tensors.length), u64(metadata.length)];
  for (const [key, value] of metadata) head.push(text(key), ...metadataValue(value));
  let offset = 0;
  for (const { name, rows, cols, type: stored, data } of tensors) {
    const dims = rows === 1 ? [cols] : [cols, rows];
    head.push(text(name), u32(dims.length), ...dims.map(u64), u32(types[stored].number), u64(offset));
    offset += Math.ceil(data.length / 32) * 32;
  }
  writeFileSync(file, Buffer.concat([padded(Buffer.concat(head)), ...tensors.map(({ data }) => padded(data))]));
}

/** Every byte in the spelling of byte-level vocabularies, the end of a text, and some that no text needs. */
function tinyTokens() {
  const plain = (byte) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  let others = 0;
  const bytes = Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(plain(byte) ? byte : 256 + others++));
  const rest = Array.from({ length: tinyVocabulary - endOfText - 1 }, (_, id) => `t${endOfText + 1 + id}é`);
  return [...bytes, "<|endoftext|>", ...rest];
}

/** A folder with config.json and safetensors: one file, or shards with an index. `nosa`: with eviction heads and longrope. */
export function writeTinyFolder(folder, options = {}) {
  const { architecture = "qwen2", type = "BF16", seed = 1, shards = 1, nosa = false } = options;
  mkdirSync(folder, { recursive: true });
  const random = randomOf(seed);
  const config = {
    model_type: architecture,
    num_hidden_layers: sizes.layers,
    hidden_size: sizes.embedding,
    intermediate_size: sizes.feedForward,
    num_attention_heads: sizes.heads,
    num_key_value_heads: sizes.kvHeads,
    head_dim: sizes.headDim,
    vocab_size: tinyVocabulary,
    max_position_embeddings: sizes.context,
    rms_norm_eps: epsilon,
    rope_theta: theta,
    hidden_act: "silu",
    tie_word_embeddings: false,
    ...(nosa ? { architectures: ["SparseLlamaForCausalLM"], rope_scaling: longRope } : {}),
  };
  writeFileSync(path.join(folder, "config.json"), JSON.stringify(config, undefined, 2));
  const files = Array.from({ length: shards }, (_, i) => ({
    name: shards === 1 ? "model.safetensors" : `model-${i + 1}-of-${shards}.safetensors`,
    header: {},
    parts: [],
    bytes: 0,
  }));
  const weightMap = {};
  [...tensorsOf(architecture, sizes.layers), ...(nosa ? evictionHeads : [])].forEach((tensor, index) => {
    const file = files[index % shards];
    const data = tensorData(tensor, type, random);
    const name = checkpointName(tensor.name);
    const shape = tensor.rows === 1 ? [tensor.cols] : [tensor.rows, tensor.cols];
    file.header[name] = { dtype: type, shape, data_offsets: [file.bytes, file.bytes + data.length] };
    file.parts.push(data);
    file.bytes += data.length;
    weightMap[name] = file.name;
  });
  for (const { name, header, parts } of files) {
    const json = Buffer.from(JSON.stringify(header));
    const blanks = Buffer.alloc((8 - (json.length % 8)) % 8, " ");
    writeFileSync(path.join(folder, name), Buffer.concat([u64(json.length + blanks.length), json, blanks, ...parts]));
  }
  if (shards > 1) {
    const index = { metadata: {}, weight_map: weightMap };
    writeFileSync(path.join(folder, "model.safetensors.index.json"), JSON.stringify(index));
  }
}

/** Name and shape of every tensor; one row is a norm or a bias. */
function tensorsOf(architecture, layers) {
  const { embedding, feedForward, heads, kvHeads, headDim } = sizes;
  const all = [
    { name: "token_embd.weight", rows: tinyVocabulary, cols: embedding },
    { name: "output_norm.weight", rows: 1, cols: embedding },
    { name: "output.weight", rows: tinyVocabulary, cols: embedding },
  ];
  for (let layer = 0; layer < layers; layer++) {
    const add = (name, rows, cols) => all.push({ name: `blk.${layer}.${name}`, rows, cols });
    add("attn_norm.weight", 1, embedding);
    add("attn_q.weight", heads * headDim, embedding);
    add("attn_k.weight", kvHeads * headDim, embedding);
    add("attn_v.weight", kvHeads * headDim, embedding);
    add("attn_output.weight", embedding, heads * headDim);
    add("ffn_norm.weight", 1, embedding);
    add("ffn_gate.weight", feedForward, embedding);
    add("ffn_up.weight", feedForward, embedding);
    add("ffn_down.weight", embedding, feedForward);
    if (architecture !== "qwen2") continue;
    add("attn_q.bias", 1, heads * headDim);
    add("attn_k.bias", 1, kvHeads * headDim);
    add("attn_v.bias", 1, kvHeads * headDim);
  }
  return all;
}

/** As NOSA's checkpoints have them: one list of factors for every length. */
const factors = Array.from({ length: sizes.headDim / 2 }, (_, i) => 1 + i / 2);
const longRope = {
  rope_type: "longrope",
  short_factor: factors,
  long_factor: factors,
  attention_factor: 1,
  original_max_position_embeddings: sizes.context,
};

const evictionHeads = Array.from({ length: sizes.layers }, (_, layer) => [
  { name: `blk.${layer}.nosa_a`, rows: 1, cols: sizes.kvHeads },
  { name: `blk.${layer}.nosa_delta.weight`, rows: sizes.kvHeads, cols: sizes.kvHeads * sizes.headDim },
]).flat();

const checkpointStems = {
  attn_norm: "input_layernorm",
  attn_q: "self_attn.q_proj",
  attn_k: "self_attn.k_proj",
  attn_v: "self_attn.v_proj",
  attn_output: "self_attn.o_proj",
  ffn_norm: "post_attention_layernorm",
  ffn_gate: "mlp.gate_proj",
  ffn_up: "mlp.up_proj",
  ffn_down: "mlp.down_proj",
  nosa_a: "self_attn.A",
  nosa_delta: "self_attn.delta",
  token_embd: "model.embed_tokens",
  output_norm: "model.norm",
  output: "lm_head",
};

function checkpointName(name) {
  const parts = name.split(".");
  if (parts[0] !== "blk") return `${checkpointStems[parts[0]]}.${parts[1]}`;
  return ["model.layers", parts[1], checkpointStems[parts[2]], ...parts.slice(3)].join(".");
}

function tensorData({ name, rows, cols }, type, random) {
  const { values, bytes } = types[type];
  const count = rows * cols;
  const spread = rows === 1 ? 0.2 : 1.5 / Math.sqrt(cols);
  const mean = name.endsWith("norm.weight") ? 1 : 0;
  const data = Buffer.alloc((count / values) * bytes);
  if (values === 1) {
    for (let i = 0; i < count; i++) {
      const value = mean + spread * 3 * (random() - random());
      if (type === "F32") data.writeFloatLE(value, i * 4);
      else data.writeUInt16LE(type === "F16" ? halfOf(value) : bfloatOf(value), i * 2);
    }
    return data;
  }
  // Random levels under scales that keep the values as small as those of the plain types.
  for (let i = 0; i < data.length; i++) data[i] = Math.floor(random() * 256);
  const { at, reach } = scales[type];
  for (let block = 0; block < data.length; block += bytes) {
    at.forEach((place, i) => {
      // The second one is a least value: of the opposite sense, so that the levels lie around zero.
      const scale = ((1 + random()) * spread) / reach;
      const least = values === 32 ? -scale * reach * 0.5 : (scale * reach) / 64;
      data.writeUInt16LE(halfOf(i === 0 ? scale : least), block + place);
    });
  }
  return data;
}

/** Mulberry32. */
function randomOf(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function halfOf(value) {
  const size = Math.abs(value);
  const sign = value < 0 ? 0x8000 : 0;
  if (size < 2 ** -14) return sign | Math.round(size * 2 ** 24);
  const exponent = Math.floor(Math.log2(size));
  return sign | (Math.round((size / 2 ** exponent) * 1024) - 1024 + ((exponent + 15) << 10));
}

function bfloatOf(value) {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatBE(value);
  return bytes.readUInt16BE(0);
}

function padded(bytes) {
  return Buffer.concat([bytes, Buffer.alloc((32 - (bytes.length % 32)) % 32)]);
}

if (process.argv[1] === import.meta.filename) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { seed: { type: "string", default: "1" } },
  });
  const folder = positionals[0];
  if (folder === undefined) {
    process.stderr.write("Usage: node scripts/make-tiny-model.mjs FOLDER [--seed N]\n");
    process.exitCode = 2;
  } else {
    const seed = Number(values.seed);
    mkdirSync(folder, { recursive: true });
    for (const architecture of ["llama", "qwen2"]) {
      for (const type of weightTypes) {
        writeTinyGguf(path.join(folder, `${architecture}-${type}.gguf`), { architecture, type, seed });
      }
      writeTinyFolder(path.join(folder, `${architecture}-bf16`), { architecture, seed });
      writeTinyFolder(path.join(folder, `${architecture}-f32-shards`), { architecture, type: "F32", seed, shards: 3 });
    }
    writeTinyFolder(path.join(folder, "llama-nosa"), { architecture: "llama", seed, nosa: true });
    process.stdout.write(`Tiny models of ${weightTypes.length} types and two families are in ${folder}.\n`);
  }
}
