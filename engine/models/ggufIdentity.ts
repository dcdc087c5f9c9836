/**
 * What a GGUF file says it is: the first lines of its header, enough to refuse a file that is something else. Reading models is native code's work.
 */

import { open } from "node:fs/promises";

export interface GgufIdentity {
  readonly architecture: string;
  readonly name: string;
  /** 0 when the file does not say. */
  readonly contextLength: number;
}

/** The keys looked for come before the vocabulary, within this. */
const headBytes = 256 * 1024;
const keysMax = 256;

/** Undefined for what is no GGUF file, or one whose header is damaged where it was read. */
export async function readGgufIdentity(path: string): Promise<GgufIdentity | undefined> {
  const handle = await open(path, "r");
  try {
    const head = Buffer.alloc(headBytes);
    const { bytesRead } = await handle.read(head, 0, headBytes, 0);
    return parseGgufIdentity(head.subarray(0, bytesRead));
  } finally {
    await handle.close();
  }
}

/** `head` is the beginning of a file; what lies beyond it is not looked at. */
export function parseGgufIdentity(head: Buffer): GgufIdentity | undefined {
  const magic = "GGUF";
  if (head.toString("latin1", 0, magic.length) !== magic || head.length < 24) return undefined;
  const found = new Map<string, string | number>();
  const keys = Math.min(Number(head.readBigUInt64LE(16)), keysMax);
  let at = 24;
  for (let key = 0; key < keys; key++) {
    const entry = readEntry(head, at);
    if (entry === undefined) break;
    found.set(entry.key, entry.value);
    at = entry.end;
  }
  const architecture = found.get("general.architecture");
  if (typeof architecture !== "string") return undefined;
  const name = found.get("general.name");
  const contextLength = found.get(`${architecture}.context_length`);
  return {
    architecture,
    name: typeof name === "string" ? name : "",
    contextLength: typeof contextLength === "number" ? contextLength : 0,
  };
}

interface Entry {
  readonly key: string;
  /** "" for the kinds of value that nothing here asks for. */
  readonly value: string | number;
  readonly end: number;
}

/** Bytes of a value by GGUF's number for its type; strings and arrays have none. */
const valueBytes: readonly (number | undefined)[] = [1, 1, 2, 2, 4, 4, 4, 1, undefined, undefined, 8, 8, 8];
const unsignedType = 4;
const stringType = 8;

/** Undefined at an array, which is where the vocabulary begins, and where the bytes end. */
function readEntry(head: Buffer, at: number): Entry | undefined {
  const key = readString(head, at);
  if (key === undefined || key.end + 4 > head.length) return undefined;
  const type = head.readUInt32LE(key.end);
  const start = key.end + 4;
  if (type === stringType) {
    const value = readString(head, start);
    return value === undefined ? undefined : { key: key.text, value: value.text, end: value.end };
  }
  const bytes = valueBytes[type];
  if (bytes === undefined || start + bytes > head.length) return undefined;
  return { key: key.text, value: type === unsignedType ? head.readUInt32LE(start) : "", end: start + bytes };
}

function readString(head: Buffer, at: number): { readonly text: string; readonly end: number } | undefined {
  if (at + 8 > head.length) return undefined;
  const length = Number(head.readBigUInt64LE(at));
  const end = at + 8 + length;
  return end > head.length ? undefined : { text: head.toString("utf8", at + 8, end), end };
}
