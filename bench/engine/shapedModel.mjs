// A model of the shape of MiniCPM4-8B (32 layers of 4,096, 32 query and 2 KV heads of 128, 16,384 between) with random weights in Q4_0
// and the vocabulary of a model that is there. It answers nonsense in the time that a model of 8B takes.
import { closeSync, openSync, readSync, writeSync } from "node:fs";
import { randomBytes } from "node:crypto";
import { metadataValue, text, u32, u64 } from "../../scripts/lib/ggufBytes.mjs";

const shape = {
  layers: 32,
  embedding: 4096,
  feedForward: 16_384,
  heads: 32,
  kvHeads: 2,
  headDim: 128,
  context: 32_768,
};
const types = { F32: { number: 0, values: 1, bytes: 4 }, Q4_0: { number: 2, values: 32, bytes: 18 } };
const alignment = 32;
/** Weights spread by 0.02 or so: a level is one of 16 around zero. */
const levelScale = Buffer.from([0x00, 0x1d]); // 0.0049 as f16.
/** Of the header of the model that lends its vocabulary. */
const headerBytesMax = 64 << 20;

/** Writes the GGUF file `file` with the vocabulary of the GGUF file `vocabularyOf`; returns the number of its weights. */
export function writeShapedModel(file, vocabularyOf) {
  const { entries, vocabulary } = vocabularyIn(vocabularyOf);
  const tensors = tensorsOf(vocabulary);
  const metadata = [
    entry("general.architecture", "qwen2"),
    entry("general.name", "Random weights, 8B shape"),
    entry("qwen2.block_count", shape.layers),
    entry("qwen2.embedding_length", shape.embedding),
    entry("qwen2.feed_forward_length", shape.feedForward),
    entry("qwen2.attention.head_count", shape.heads),
    entry("qwen2.attention.head_count_kv", shape.kvHeads),
    entry("qwen2.context_length", shape.context),
    entry("qwen2.attention.layer_norm_rms_epsilon", { float: 1e-6 }),
    entry("qwen2.rope.freq_base", { float: 1e6 }),
    ...entries,
  ];
  const head = [Buffer.from("GGUF"), u32(3), u64(tensors.length), u64(metadata.length), ...metadata];
  let offset = 0;
  for (const { name, rows, cols, type } of tensors) {
    const dims = rows === 1 ? [cols] : [cols, rows];
    head.push(text(name), u32(dims.length), ...dims.map(u64), u32(types[type].number), u64(offset));
    offset += aligned(bytesOf({ rows, cols, type }));
  }
  const out = openSync(file, "w");
  try {
    const header = Buffer.concat(head);
    writeSync(out, Buffer.concat([header, Buffer.alloc(aligned(header.length) - header.length)]));
    const levels = randomLevels();
    for (const tensor of tensors) writeTensor(out, tensor, levels);
  } finally {
    closeSync(out);
  }
  return tensors.reduce((sum, { rows, cols }) => sum + rows * cols, 0);
}

function tensorsOf(vocabulary) {
  const { embedding, feedForward, heads, kvHeads, headDim, layers } = shape;
  const norm = (name, cols) => ({ name, rows: 1, cols, type: "F32", value: 1 });
  const bias = (name, cols) => ({ name, rows: 1, cols, type: "F32", value: 0 });
  const matrix = (name, rows, cols) => ({ name, rows, cols, type: "Q4_0" });
  const layer = (at) => [
    norm(`blk.${at}.attn_norm.weight`, embedding),
    matrix(`blk.${at}.attn_q.weight`, heads * headDim, embedding),
    bias(`blk.${at}.attn_q.bias`, heads * headDim),
    matrix(`blk.${at}.attn_k.weight`, kvHeads * headDim, embedding),
    bias(`blk.${at}.attn_k.bias`, kvHeads * headDim),
    matrix(`blk.${at}.attn_v.weight`, kvHeads * headDim, embedding),
    bias(`blk.${at}.attn_v.bias`, kvHeads * headDim),
    matrix(`blk.${at}.attn_output.weight`, embedding, heads * headDim),
    norm(`blk.${at}.ffn_norm.weight`, embedding),
    matrix(`blk.${at}.ffn_gate.weight`, feedForward, embedding),
    matrix(`blk.${at}.ffn_up.weight`, feedForward, embedding),
    matrix(`blk.${at}.ffn_down.weight`, embedding, feedForward),
  ];
  return [
    matrix("token_embd.weight", vocabulary, embedding),
    norm("output_norm.weight", embedding),
    matrix("output.weight", vocabulary, embedding),
    ...Array.from({ length: layers }, (_, at) => layer(at)).flat(),
  ];
}

/** Blocks of Q4_0 with random levels, 18 MiB. */
function randomLevels() {
  const { bytes } = types.Q4_0;
  const levels = randomBytes(bytes << 20);
  for (let at = 0; at < levels.length; at += bytes) levelScale.copy(levels, at);
  return levels;
}

/** Random levels from a place of the tensor's own on, again and again. */
function writeTensor(out, tensor, levels) {
  const bytes = bytesOf(tensor);
  if (tensor.type === "F32") {
    writeSync(out, Buffer.from(new Float32Array(tensor.cols).fill(tensor.value).buffer));
  } else {
    const blocks = levels.length / types.Q4_0.bytes;
    let from = Math.floor(Math.random() * blocks) * types.Q4_0.bytes;
    for (let left = bytes; left > 0; from = 0) {
      left -= writeSync(out, levels, from, Math.min(left, levels.length - from));
    }
  }
  writeSync(out, Buffer.alloc(aligned(bytes) - bytes));
}

/** What `file` says of its tokenizer, entry by entry as it stands there, and the size of its vocabulary. */
function vocabularyIn(file) {
  const source = openSync(file, "r");
  const header = Buffer.alloc(headerBytesMax);
  readSync(source, header, 0, headerBytesMax, 0);
  closeSync(source);
  const entries = [];
  let vocabulary = 0;
  let at = 24;
  const count = Number(header.readBigUInt64LE(16));
  for (let i = 0; i < count; i++) {
    const start = at;
    const length = Number(header.readBigUInt64LE(at));
    const key = header.toString("utf8", at + 8, at + 8 + length);
    at += 8 + length;
    const type = header.readUInt32LE(at);
    if (key === "tokenizer.ggml.tokens") vocabulary = Number(header.readBigUInt64LE(at + 8));
    at = endOfValue(header, at + 4, type);
    if (key.startsWith("tokenizer.")) entries.push(header.subarray(start, at));
  }
  if (vocabulary === 0) throw new Error(`${file} has no vocabulary.`);
  return { entries, vocabulary };
}

const stringType = 8;
const arrayType = 9;
/** Of GGUF's numbers and booleans, by their type. */
const numberBytes = [1, 1, 2, 2, 4, 4, 4, 1, undefined, undefined, 8, 8, 8];

function endOfValue(header, at, type) {
  if (type === stringType) return at + 8 + Number(header.readBigUInt64LE(at));
  if (type !== arrayType) return at + numberBytes[type];
  const of = header.readUInt32LE(at);
  const count = Number(header.readBigUInt64LE(at + 4));
  let end = at + 12;
  for (let i = 0; i < count; i++) end = endOfValue(header, end, of);
  return end;
}

function entry(key, value) {
  return Buffer.concat([text(key), ...metadataValue(value)]);
}

function bytesOf({ rows, cols, type }) {
  return ((rows * cols) / types[type].values) * types[type].bytes;
}

function aligned(bytes) {
  return Math.ceil(bytes / alignment) * alignment;
}
