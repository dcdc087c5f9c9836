/**
 * Rewrites the quantised matrices of a GGUF file in another type, for tests where no such file can be downloaded.
 *
 * The metadata and all other tensors are copied as they are. Trusts its input: the product reads GGUF in native code.
 */

import { closeSync, openSync, readFileSync, writeSync } from "node:fs";

export type Target = "Q8_0" | "Q4_1";

const blockValues = 32;
const targets = { Q8_0: { type: 8, bytes: 34 }, Q4_1: { type: 3, bytes: 20 } } as const;

interface Tensor {
  readonly name: Buffer;
  readonly dims: readonly bigint[];
  readonly type: number;
  readonly offset: number;
  readonly bytes: number;
}

export function requantise(from: string, to: string, target: Target): void {
  const file = readFileSync(from);
  const reader = new Reader(file);
  const tensorCount = reader.skipTo(8).u64();
  const valueCount = reader.u64();
  for (let i = 0; i < valueCount; i++) reader.skipKeyAndValue();
  const metadataEnd = reader.at;
  const infos = Array.from({ length: tensorCount }, () => reader.tensorInfo());
  const dataStart = aligned(reader.at);
  const ends = infos.map((info) => info.offset).sort((a, b) => a - b);
  const tensors: Tensor[] = infos.map((info) => {
    const next = ends.find((offset) => offset > info.offset) ?? file.length - dataStart;
    return { ...info, bytes: next - info.offset };
  });

  const changes = (tensor: Tensor): boolean => tensor.type in sources && tensor.type !== targets[target].type;
  const sizeOf = (tensor: Tensor): number =>
    changes(tensor) ? (valueCountOf(tensor) / blockValues) * targets[target].bytes : tensor.bytes;
  const header: Buffer[] = [file.subarray(0, metadataEnd)];
  let offset = 0;
  for (const tensor of tensors) {
    header.push(tensorInfo(tensor, changes(tensor) ? targets[target].type : tensor.type, offset));
    offset = aligned(offset + sizeOf(tensor));
  }

  const out = openSync(to, "w");
  let position = 0;
  const put = (bytes: Buffer): void => {
    for (let at = 0; at < bytes.length; at += ioBytesMax) writeSync(out, bytes.subarray(at, at + ioBytesMax));
    position += bytes.length;
  };
  const pad = (): void => put(Buffer.alloc(aligned(position) - position));
  header.forEach(put);
  pad();
  for (const tensor of tensors) {
    const data = file.subarray(dataStart + tensor.offset);
    put(changes(tensor) ? convert(tensor, data, target) : data.subarray(0, tensor.bytes));
    pad();
  }
  closeSync(out);
}

const ioBytesMax = 1 << 28;

/** Values and bytes of a block of each type that is read, and how its values are spelt out. */
interface Source {
  readonly values: number;
  readonly bytes: number;
  readonly expand: (data: Buffer, at: number, out: Float32Array) => void;
}

const sources: Readonly<Record<number, Source>> = {
  3: { values: 32, bytes: 20, expand: expandQ4_1 },
  6: { values: 32, bytes: 22, expand: expandQ5_0 },
  8: { values: 32, bytes: 34, expand: expandQ8_0 },
  12: { values: 256, bytes: 144, expand: expandQ4_K },
  14: { values: 256, bytes: 210, expand: expandQ6_K },
};

function valueCountOf(tensor: Tensor): number {
  return Number(tensor.dims.reduce((product, dim) => product * dim, 1n));
}

function convert(tensor: Tensor, data: Buffer, target: Target): Buffer {
  const source = sources[tensor.type];
  if (source === undefined) throw new Error(`Type ${tensor.type} cannot be read here.`);
  const { bytes } = targets[target];
  const out = Buffer.alloc((valueCountOf(tensor) / blockValues) * bytes);
  const values = new Float32Array(source.values);
  const blocks = valueCountOf(tensor) / source.values;
  const pack = target === "Q8_0" ? packQ8_0 : packQ4_1;
  for (let block = 0, to = 0; block < blocks; block++) {
    source.expand(data, block * source.bytes, values);
    for (let from = 0; from < source.values; from += blockValues, to += bytes) pack(values, from, out, to);
  }
  return out;
}

function expandQ4_1(data: Buffer, at: number, out: Float32Array): void {
  const scale = halfToNumber(data.readUInt16LE(at));
  const least = halfToNumber(data.readUInt16LE(at + 2));
  for (let i = 0; i < 16; i++) {
    const pair = data[at + 4 + i] ?? 0;
    out[i] = scale * (pair & 15) + least;
    out[i + 16] = scale * (pair >> 4) + least;
  }
}

function expandQ5_0(data: Buffer, at: number, out: Float32Array): void {
  const scale = halfToNumber(data.readUInt16LE(at));
  const fifth = data.readUInt32LE(at + 2);
  for (let i = 0; i < 16; i++) {
    const pair = data[at + 6 + i] ?? 0;
    out[i] = scale * (((pair & 15) | (((fifth >>> i) & 1) << 4)) - 16);
    out[i + 16] = scale * (((pair >> 4) | (((fifth >>> (i + 16)) & 1) << 4)) - 16);
  }
}

function expandQ8_0(data: Buffer, at: number, out: Float32Array): void {
  const scale = halfToNumber(data.readUInt16LE(at));
  for (let i = 0; i < 32; i++) out[i] = scale * data.readInt8(at + 2 + i);
}

function expandQ4_K(data: Buffer, at: number, out: Float32Array): void {
  const scale = halfToNumber(data.readUInt16LE(at));
  const least = halfToNumber(data.readUInt16LE(at + 2));
  const packed = (i: number): number => data[at + 4 + i] ?? 0;
  for (let part = 0; part < 8; part++) {
    // Eight scales and minima of six bits: the last four of each keep their upper bits beside the first four.
    const [levels, floor] =
      part < 4
        ? [packed(part) & 63, packed(part + 4) & 63]
        : [
            (packed(part + 4) & 15) | ((packed(part - 4) >> 6) << 4),
            (packed(part + 4) >> 4) | ((packed(part) >> 6) << 4),
          ];
    for (let i = 0; i < 32; i++) {
      const pair = data[at + 16 + (part >> 1) * 32 + i] ?? 0;
      out[part * 32 + i] = scale * levels * (part % 2 === 0 ? pair & 15 : pair >> 4) - least * floor;
    }
  }
}

function expandQ6_K(data: Buffer, at: number, out: Float32Array): void {
  const scale = halfToNumber(data.readUInt16LE(at + 208));
  for (let i = 0; i < 256; i++) {
    const half = i >> 7;
    const quarter = (i >> 5) & 3;
    const low = data[at + half * 64 + (quarter & 1) * 32 + (i & 31)] ?? 0;
    const high = data[at + 128 + half * 32 + (i & 31)] ?? 0;
    const level = (quarter < 2 ? low & 15 : low >> 4) | (((high >> (2 * quarter)) & 3) << 4);
    out[i] = scale * data.readInt8(at + 192 + (i >> 4)) * (level - 32);
  }
}

function packQ8_0(values: Float32Array, from: number, out: Buffer, to: number): void {
  let peak = 0;
  for (let i = 0; i < blockValues; i++) peak = Math.max(peak, Math.abs(values[from + i] ?? 0));
  const half = numberToHalf(peak / 127);
  const step = halfToNumber(half);
  out.writeUInt16LE(half, to);
  for (let i = 0; i < blockValues; i++) {
    const level = step === 0 ? 0 : Math.round((values[from + i] ?? 0) / step);
    out.writeInt8(Math.max(-127, Math.min(127, level)), to + 2 + i);
  }
}

function packQ4_1(values: Float32Array, from: number, out: Buffer, to: number): void {
  let least = Infinity;
  let most = -Infinity;
  for (let i = 0; i < blockValues; i++) {
    const value = values[from + i] ?? 0;
    least = Math.min(least, value);
    most = Math.max(most, value);
  }
  const half = numberToHalf((most - least) / 15);
  const step = halfToNumber(half);
  const leastHalf = least < 0 ? numberToHalf(-least) | 0x8000 : numberToHalf(least);
  const base = halfToNumber(leastHalf);
  const level = (i: number): number =>
    step === 0 ? 0 : Math.max(0, Math.min(15, Math.round(((values[from + i] ?? 0) - base) / step)));
  out.writeUInt16LE(half, to);
  out.writeUInt16LE(leastHalf, to + 2);
  for (let i = 0; i < 16; i++) out.writeUInt8(level(i) | (level(i + 16) << 4), to + 4 + i);
}

function tensorInfo(tensor: Tensor, type: number, offset: number): Buffer {
  const info = Buffer.alloc(8 + tensor.name.length + 4 + 8 * tensor.dims.length + 12);
  let at = info.writeBigUInt64LE(BigInt(tensor.name.length), 0);
  at += tensor.name.copy(info, at);
  at = info.writeUInt32LE(tensor.dims.length, at);
  for (const dim of tensor.dims) at = info.writeBigUInt64LE(dim, at);
  at = info.writeUInt32LE(type, at);
  info.writeBigUInt64LE(BigInt(offset), at);
  return info;
}

function aligned(offset: number): number {
  return Math.ceil(offset / 32) * 32;
}

function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Of a small number that is not negative, rounded to nearest. */
function numberToHalf(value: number): number {
  if (value < 2 ** -14) return Math.round(value * 2 ** 24);
  const exponent = Math.floor(Math.log2(value));
  const bits = Math.round((value / 2 ** exponent) * 1024) - 1024 + ((exponent + 15) << 10);
  return bits;
}

class Reader {
  at = 0;
  constructor(private readonly bytes: Buffer) {}

  skipTo(offset: number): this {
    this.at = offset;
    return this;
  }

  u32(): number {
    this.at += 4;
    return this.bytes.readUInt32LE(this.at - 4);
  }

  u64(): number {
    this.at += 8;
    return Number(this.bytes.readBigUInt64LE(this.at - 8));
  }

  text(): Buffer {
    const length = this.u64();
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }

  skipKeyAndValue(): void {
    this.text();
    this.skipValue(this.u32());
  }

  skipValue(type: number): void {
    if (type === 8) {
      this.text();
    } else if (type === 9) {
      const element = this.u32();
      const count = this.u64();
      for (let i = 0; i < count; i++) this.skipValue(element);
    } else {
      this.at += [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8][type] ?? 0;
    }
  }

  tensorInfo(): Omit<Tensor, "bytes"> {
    const name = this.text();
    const dims = Array.from({ length: this.u32() }, () => BigInt(this.u64()));
    return { name, dims, type: this.u32(), offset: this.u64() };
  }
}
