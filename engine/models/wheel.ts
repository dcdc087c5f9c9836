/**
 * One member out of a Python wheel, which is a zip file, as a stream.
 */

import { createReadStream } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import type { Readable } from "node:stream";
import { createInflateRaw } from "node:zlib";

/** Why a wheel could not be read. */
export class WheelError extends Error {}

const endSignature = 0x06054b50;
const entrySignature = 0x02014b50;
const localSignature = 0x04034b50;
const endBytes = 22;
const entryBytes = 46;
const localBytes = 30;
/** The end record is followed by a comment of at most 64 KiB. */
const commentBytesMax = 0xffff;
const directoryBytesMax = 16 * 1024 * 1024;
const stored = 0;
const deflated = 8;

/** Bytes of `member`. Whoever reads them bounds their number: what the wheel says of it is not trusted. Rejects with WheelError. */
export async function wheelMember(wheel: string, member: string): Promise<Readable> {
  const handle = await open(wheel, "r");
  try {
    const { method, bytes, localAt } = await findEntry(handle, member);
    const local = await readAt(handle, localAt, localBytes);
    if (local.readUInt32LE(0) !== localSignature) throw new WheelError("a member is not where the directory says");
    const start = localAt + localBytes + local.readUInt16LE(26) + local.readUInt16LE(28);
    if (bytes === 0) throw new WheelError(`${member} is empty`);
    const raw = createReadStream(wheel, { start, end: start + bytes - 1, highWaterMark: 1 << 20 });
    if (method === stored) return raw;
    if (method !== deflated) throw new WheelError(`${member} is compressed in a way that is not known (${method})`);
    const inflate = createInflateRaw({ chunkSize: 1 << 20 });
    raw.on("error", (error) => inflate.destroy(error));
    inflate.on("close", () => raw.destroy());
    return raw.pipe(inflate);
  } finally {
    await handle.close();
  }
}

interface Entry {
  readonly method: number;
  /** Compressed. */
  readonly bytes: number;
  readonly localAt: number;
}

async function findEntry(handle: FileHandle, member: string): Promise<Entry> {
  const { size } = await handle.stat();
  const tail = await readAt(
    handle,
    Math.max(0, size - endBytes - commentBytesMax),
    Math.min(size, endBytes + commentBytesMax),
  );
  const end = lastEndRecord(tail);
  const directoryBytes = tail.readUInt32LE(end + 12);
  if (directoryBytes > directoryBytesMax) throw new WheelError("its directory is too large");
  const directory = await readAt(handle, tail.readUInt32LE(end + 16), directoryBytes);
  for (let at = 0; at + entryBytes <= directory.length;) {
    if (directory.readUInt32LE(at) !== entrySignature) break;
    const nameBytes = directory.readUInt16LE(at + 28);
    const name = directory.toString("utf8", at + entryBytes, at + entryBytes + nameBytes);
    if (name === member) {
      return {
        method: directory.readUInt16LE(at + 10),
        bytes: directory.readUInt32LE(at + 20),
        localAt: directory.readUInt32LE(at + 42),
      };
    }
    at += entryBytes + nameBytes + directory.readUInt16LE(at + 30) + directory.readUInt16LE(at + 32);
  }
  throw new WheelError(`it holds no ${member}`);
}

function lastEndRecord(tail: Buffer): number {
  for (let at = tail.length - endBytes; at >= 0; at--) {
    if (tail.readUInt32LE(at) === endSignature) return at;
  }
  throw new WheelError("it is no zip file, or its end is missing");
}

async function readAt(handle: FileHandle, at: number, bytes: number): Promise<Buffer> {
  const buffer = Buffer.alloc(bytes);
  const { bytesRead } = await handle.read(buffer, 0, bytes, at);
  if (bytesRead !== bytes) throw new WheelError("it is cut short");
  return buffer;
}
