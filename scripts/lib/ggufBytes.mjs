// Numbers, texts and values of metadata as GGUF files hold them (little endian; llama.cpp's format of that name, version 3).

export function u32(value) {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

export function u64(value) {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

/** Its length in bytes, then the bytes. */
export function text(value) {
  const bytes = Buffer.from(value, "utf8");
  return Buffer.concat([u64(bytes.length), bytes]);
}

/** The type's number and the value: of a text, a whole number, a list of texts, or `{ float }`. */
export function metadataValue(value) {
  if (typeof value === "string") return [u32(8), text(value)];
  if (typeof value === "number") return [u32(4), u32(value)];
  if (Array.isArray(value)) return [u32(9), u32(8), u64(value.length), ...value.map(text)];
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value.float);
  return [u32(6), bytes];
}
