/**
 * A GGUF header reader and writer for tests: small on purpose, trusting its input. The product reads GGUF in native code.
 */

import { closeSync, openSync, readSync } from "node:fs";
import type { GgufMetadata } from "../../engine/native/addon";

type Scalar = string | number | boolean;

const scalarSizes: Readonly<Record<number, number>> = {
  0: 1,
  1: 1,
  2: 2,
  3: 2,
  4: 4,
  5: 4,
  6: 4,
  7: 1,
  10: 8,
  11: 8,
  12: 8,
};
const headerBytesMax = 64 * 1024 * 1024;

export function ggufMetadata(path: string): GgufMetadata {
  const file = openSync(path, "r");
  const bytes = Buffer.alloc(headerBytesMax);
  const size = readSync(file, bytes, 0, headerBytesMax, 0);
  closeSync(file);
  if (size < 24 || bytes.toString("latin1", 0, 4) !== "GGUF") {
    throw Object.assign(new Error("Not a GGUF file."), { code: "corrupt" });
  }
  let at = 16;
  const unsigned = (): number => {
    at += 8;
    return Number(bytes.readBigUInt64LE(at - 8));
  };
  const word = (): number => {
    at += 4;
    return bytes.readUInt32LE(at - 4);
  };
  const text = (): string => {
    const length = unsigned();
    at += length;
    return bytes.toString("utf8", at - length, at);
  };
  const value = (type: number): Scalar => {
    if (type === 8) return text();
    const from = at;
    at += scalarSizes[type] ?? 0;
    switch (type) {
      case 0:
        return bytes.readUInt8(from);
      case 1:
        return bytes.readInt8(from);
      case 2:
        return bytes.readUInt16LE(from);
      case 3:
        return bytes.readInt16LE(from);
      case 4:
        return bytes.readUInt32LE(from);
      case 5:
        return bytes.readInt32LE(from);
      case 6:
        return bytes.readFloatLE(from);
      case 7:
        return bytes.readUInt8(from) !== 0;
      case 10:
        return Number(bytes.readBigUInt64LE(from));
      case 11:
        return Number(bytes.readBigInt64LE(from));
      default:
        return bytes.readDoubleLE(from);
    }
  };
  const scalars: Record<string, Scalar> = {};
  const arrays: Record<string, Scalar[]> = {};
  for (let left = unsigned(); left > 0; left--) {
    const key = text();
    const type = word();
    if (type !== 9) scalars[key] = value(type);
    else {
      const element = word();
      arrays[key] = Array.from({ length: unsigned() }, () => value(element));
    }
  }
  return { scalars, arrays };
}

/** A file with metadata and no tensors: what a program needs that reads the vocabulary alone. */
export function ggufBytes(metadata: GgufMetadata): Buffer {
  const parts: Buffer[] = [];
  const text = (value: string): void => {
    const utf8 = Buffer.from(value);
    parts.push(unsigned(utf8.length), utf8);
  };
  const scalar = (type: number, value: Scalar): void => {
    if (typeof value === "string") text(value);
    else if (typeof value === "boolean") parts.push(Buffer.of(value ? 1 : 0));
    else parts.push(numberBytes(type, value));
  };
  parts.push(Buffer.from("GGUF"), word(3), unsigned(0));
  parts.push(unsigned(Object.keys(metadata.scalars).length + Object.keys(metadata.arrays).length));
  for (const [key, value] of Object.entries(metadata.scalars)) {
    text(key);
    const type = typeOf(key, value, false);
    parts.push(word(type));
    scalar(type, value);
  }
  for (const [key, values] of Object.entries(metadata.arrays)) {
    text(key);
    const type = typeOf(key, values[0] ?? "", true);
    parts.push(word(9), word(type), unsigned(values.length));
    for (const value of values) scalar(type, value);
  }
  return Buffer.concat(parts);
}

/** GGUF's number for the type that readers expect under `key`. */
function typeOf(key: string, value: Scalar, inArray: boolean): number {
  if (typeof value === "string") return 8;
  if (typeof value === "boolean") return 7;
  if (/(freq_base|epsilon|scores)$/.test(key)) return 6;
  return inArray ? 5 : 4;
}

function numberBytes(type: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  if (type === 4) bytes.writeUInt32LE(value);
  else if (type === 5) bytes.writeInt32LE(value);
  else bytes.writeFloatLE(value);
  return bytes;
}

function word(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function unsigned(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}
