/**
 * Saved contexts on disk: records of repositories, and segments of KV by content.
 *
 * A record is written aside and renamed, and so is a segment (by native code). What does not check out is set aside,
 * never deleted and never trusted. Several records may share a segment.
 */

import { createHash } from "node:crypto";
import * as fs from "node:fs/promises";
import * as path from "node:path";
import { codeOf } from "../errors";
import type { Log } from "../log";
import { parseRecord, type ContextRecord } from "./context";

/** Segments that no record names are kept this long: a branch may be switched back. */
const orphanMsMax = 7 * 24 * 60 * 60 * 1000;

/** Owns the folder of saved contexts. */
export class ContextStore {
  readonly #folder: string;
  readonly #log: Log;
  readonly #records = new Map<string, ContextRecord>();
  readonly #bytesByKey = new Map<string, number>();
  readonly #recordBytes = new Map<string, number>();

  private constructor(folder: string, log: Log) {
    this.#folder = folder;
    this.#log = log;
  }

  /** Reads every record once; one that does not parse is set aside. */
  static async open(folder: string, log: Log): Promise<ContextStore> {
    const store = new ContextStore(folder, log);
    for (const sub of [store.#segments, store.#recordsFolder, store.#aside]) {
      await fs.mkdir(sub, { recursive: true, mode: 0o700 });
    }
    await store.#readSegments();
    await store.#readRecords();
    await store.#removeOldOrphans();
    return store;
  }

  /** Bytes of everything kept. */
  get bytes(): number {
    return sum(this.#bytesByKey.values()) + sum(this.#recordBytes.values());
  }

  records(): readonly ContextRecord[] {
    return [...this.#records.values()];
  }

  /** The record of `root` under the model with `fingerprint`. */
  get(root: string, fingerprint: string): ContextRecord | undefined {
    return this.#records.get(recordName(root, fingerprint));
  }

  recordsOf(root: string): readonly ContextRecord[] {
    return this.records().filter((record) => record.root === root);
  }

  async put(record: ContextRecord): Promise<void> {
    const name = recordName(record.root, record.fingerprint);
    const file = path.join(this.#recordsFolder, name);
    const text = JSON.stringify(record);
    const aside = `${file}.${process.pid}.tmp`;
    try {
      await fs.writeFile(aside, text, { mode: 0o600 });
      await fs.rename(aside, file);
    } catch (error) {
      await fs.rm(aside, { force: true });
      throw error;
    }
    this.#records.set(name, record);
    this.#recordBytes.set(name, Buffer.byteLength(text));
  }

  has(key: string): boolean {
    return this.#bytesByKey.has(key);
  }

  /** Where KV with this key is, or is to be, saved. */
  pathOf(key: string): string {
    return path.join(this.#segments, `${key}.kv`);
  }

  bytesOf(key: string): number {
    return this.#bytesByKey.get(key) ?? 0;
  }

  /** Native code has written the file of `key`. */
  saved(key: string, bytes: number): void {
    this.#bytesByKey.set(key, bytes);
  }

  /** Takes a file that did not check out out of use. */
  async setAside(key: string): Promise<void> {
    this.#bytesByKey.delete(key);
    this.#log.warn(`Setting aside the damaged segment ${key}`);
    await moveIfThere(this.pathOf(key), path.join(this.#aside, `${key}.${Date.now()}.kv`));
  }

  /** Deletes everything kept of `root` that no other repository's record names. Resolves with the bytes freed. */
  async forget(root: string): Promise<number> {
    const before = this.bytes;
    const forgotten = this.recordsOf(root);
    for (const record of forgotten) {
      const name = recordName(record.root, record.fingerprint);
      await fs.rm(path.join(this.#recordsFolder, name), { force: true });
      this.#records.delete(name);
      this.#recordBytes.delete(name);
    }
    const keys = new Set(forgotten.flatMap(keysOf));
    await this.#removeUnnamed((key) => keys.has(key));
    return before - this.bytes;
  }

  /** Deletes segments that no record names. Resolves with the bytes freed. */
  async removeOrphans(): Promise<number> {
    const before = this.bytes;
    await this.#removeUnnamed(() => true);
    return before - this.bytes;
  }

  get #segments(): string {
    return path.join(this.#folder, "segments");
  }

  get #recordsFolder(): string {
    return path.join(this.#folder, "records");
  }

  get #aside(): string {
    return path.join(this.#folder, "damaged");
  }

  async #readSegments(): Promise<void> {
    for (const name of await fs.readdir(this.#segments)) {
      const file = path.join(this.#segments, name);
      if (!name.endsWith(".kv")) {
        // Half a file of an engine that died while it was saving.
        await fs.rm(file, { force: true, recursive: true });
        continue;
      }
      const { size } = await fs.stat(file);
      this.#bytesByKey.set(name.slice(0, -".kv".length), size);
    }
  }

  async #readRecords(): Promise<void> {
    for (const name of await fs.readdir(this.#recordsFolder)) {
      const file = path.join(this.#recordsFolder, name);
      if (!name.endsWith(".json")) {
        await fs.rm(file, { force: true, recursive: true });
        continue;
      }
      const text = await fs.readFile(file, "utf8");
      const record = parseRecord(parseJson(text));
      if (record === undefined || recordName(record.root, record.fingerprint) !== name) {
        this.#log.warn(`Setting aside the damaged record ${name}`);
        await moveIfThere(file, path.join(this.#aside, `${name}.${Date.now()}`));
        continue;
      }
      this.#records.set(name, record);
      this.#recordBytes.set(name, Buffer.byteLength(text));
    }
  }

  async #removeOldOrphans(): Promise<void> {
    const old = new Set<string>();
    const named = this.#namedKeys();
    for (const key of this.#bytesByKey.keys()) {
      if (named.has(key)) continue;
      const { mtimeMs } = await fs.stat(this.pathOf(key));
      if (Date.now() - mtimeMs > orphanMsMax) old.add(key);
    }
    await this.#removeUnnamed((key) => old.has(key));
  }

  async #removeUnnamed(chosen: (key: string) => boolean): Promise<void> {
    const named = this.#namedKeys();
    for (const key of [...this.#bytesByKey.keys()]) {
      if (named.has(key) || !chosen(key)) continue;
      await fs.rm(this.pathOf(key), { force: true });
      this.#bytesByKey.delete(key);
    }
  }

  #namedKeys(): ReadonlySet<string> {
    return new Set(this.records().flatMap(keysOf));
  }
}

function keysOf(record: ContextRecord): readonly string[] {
  return [record.header.key, ...record.segments.map(({ key }) => key), ...record.tails];
}

function recordName(root: string, fingerprint: string): string {
  const rootHash = createHash("sha256").update(root).digest("hex").slice(0, 24);
  const modelHash = createHash("sha256").update(fingerprint).digest("hex").slice(0, 12);
  return `${rootHash}-${modelHash}.json`;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

async function moveIfThere(from: string, to: string): Promise<void> {
  try {
    await fs.rename(from, to);
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw error;
  }
}

function sum(values: Iterable<number>): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}
