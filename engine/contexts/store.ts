/**
 * Saved contexts on disk: records of repositories, and segments of KV by content.
 *
 * A record is written aside and renamed, and so is a segment (by native code, which keeps the part of one that is still
 * being read beside it). What does not check out is set aside, never deleted and never trusted. Several records may
 * share a segment. When the disk budget is used up, segments that no record names go first, then those of the
 * repository that was not used for longest.
 */

import { createHash } from "node:crypto";
import * as fs from "node:fs/promises";
import * as path from "node:path";
import { codeOf } from "../errors";
import type { Log } from "../log";
import type { EngineSettings } from "../protocol";
import { diskBudget } from "./budgets";
import { StoreOwner } from "./storeOwner";
import { parseRecord, type ContextRecord } from "./context";

/** Segments that no record names are kept this long: a branch may be switched back. */
const orphanMsMax = 7 * 24 * 60 * 60 * 1000;

/** Native code keeps what is computed of a segment in two files beside where it will be. */
const partEndings = [".kv.part", ".kv.part.log"];

/** So many damaged files are kept; they count for no budget. */
const asideMax = 4;

/** So many files are looked at at once. */
const statsAtOnce = 64;

interface Kept {
  readonly bytes: number;
  readonly savedAtMs: number;
}

/** Owns the folder of saved contexts. */
export class ContextStore {
  readonly #folder: string;
  readonly #log: Log;
  readonly #records = new Map<string, ContextRecord>();
  readonly #kept = new Map<string, Kept>();
  /** Of segments that are being read. */
  readonly #parts = new Map<string, Kept>();
  readonly #recordBytes = new Map<string, number>();
  /** By root: when it was last used. */
  readonly #usedAtMs = new Map<string, number>();
  #lastPut: Promise<void> = Promise.resolve();
  /** Roots that are open, by how many contexts. */
  readonly #held = new Map<string, number>();
  readonly #owner: StoreOwner;
  #bytesMax = Infinity;

  private constructor(folder: string, log: Log, owner: StoreOwner) {
    this.#folder = folder;
    this.#log = log;
    this.#owner = owner;
  }

  /** Reads every record once; one that does not parse is set aside. Rejects when another engine owns the folder. */
  static async open(folder: string, log: Log): Promise<ContextStore> {
    await fs.mkdir(folder, { recursive: true, mode: 0o700 });
    const store = new ContextStore(folder, log, await StoreOwner.take(folder));
    for (const sub of [store.#segments, store.#recordsFolder, store.#aside, store.spillFolder]) {
      await fs.mkdir(sub, { recursive: true, mode: 0o700 });
    }
    await Promise.all([store.#readSegments(), store.#readRecords(), store.#emptySpill()]);
    await store.#removeOldOrphans();
    return store;
  }

  /** Lets another engine own the folder. */
  dispose(): Promise<void> {
    return this.#owner.release();
  }

  /** Bytes of everything kept. */
  get bytes(): number {
    return sum(bytesIn(this.#kept)) + sum(bytesIn(this.#parts)) + sum(this.#recordBytes.values());
  }

  /** What may be kept at most; Infinity until somebody said. */
  get bytesMax(): number {
    return this.#bytesMax;
  }

  /** Where native code puts blocks that no segment holds; nothing there outlives the process. */
  get spillFolder(): string {
    return path.join(this.#folder, "spill");
  }

  /** Takes the disk budget that the settings ask for, and gives it. What is over it goes when room is next needed. */
  async limit(settings: Pick<EngineSettings, "diskGigabytes">): Promise<number> {
    const { bavail, bsize } = await fs.statfs(this.#folder);
    this.#bytesMax = diskBudget(settings, bavail * bsize, this.bytes);
    return this.#bytesMax;
  }

  /** A repository is in use: it is the last to lose what is kept of it. */
  async used(root: string): Promise<void> {
    const now = new Date();
    this.#usedAtMs.set(root, now.getTime());
    for (const name of this.#records.keys()) {
      if (this.#records.get(name)?.root !== root) continue;
      await fs.utimes(path.join(this.#recordsFolder, name), now, now).catch(() => undefined);
    }
  }

  /** While a root is held nothing of it goes to make room. */
  hold(root: string): void {
    this.#held.set(root, (this.#held.get(root) ?? 0) + 1);
  }

  letGo(root: string): void {
    const holders = (this.#held.get(root) ?? 0) - 1;
    if (holders > 0) this.#held.set(root, holders);
    else this.#held.delete(root);
  }

  /** Removes what is least needed until `bytes` more fit the budget. False when what is in use leaves too little. */
  async makeRoom(bytes: number): Promise<boolean> {
    for (const key of this.#removable()) {
      if (this.bytes + bytes <= this.#bytesMax) return true;
      await this.#remove(key);
    }
    return this.bytes + bytes <= this.#bytesMax;
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

  put(record: ContextRecord): Promise<void> {
    // One after the other: who came last is what stands there, and no two share a file aside.
    const written = this.#lastPut.then(() => this.#put(record));
    this.#lastPut = written.catch(() => undefined);
    return written;
  }

  async #put(record: ContextRecord): Promise<void> {
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
    this.#usedAtMs.set(record.root, Date.now());
  }

  has(key: string): boolean {
    return this.#kept.has(key);
  }

  /** Bytes of the part of it that was saved while it is read; 0 when there is none. */
  partBytesOf(key: string): number {
    return this.#parts.get(key)?.bytes ?? 0;
  }

  /** Where KV with this key is, or is to be, saved. */
  pathOf(key: string): string {
    return path.join(this.#segments, `${key}.kv`);
  }

  bytesOf(key: string): number {
    return this.#kept.get(key)?.bytes ?? 0;
  }

  /** Native code has written the file of `key`. */
  saved(key: string, bytes: number): void {
    this.#kept.set(key, { bytes, savedAtMs: Date.now() });
    this.#parts.delete(key);
  }

  /** Native code has written a part of it. */
  savedPart(key: string, bytes: number): void {
    this.#parts.set(key, { bytes, savedAtMs: Date.now() });
  }

  /** Takes a file that did not check out out of use. Of those set aside only the last few are kept, for who wants to look. */
  async setAside(key: string): Promise<void> {
    this.#kept.delete(key);
    this.#log.warn(`Setting aside the damaged segment ${key}`);
    await moveIfThere(this.pathOf(key), path.join(this.#aside, `${key}.${Date.now()}.kv`));
    await this.#removeOldAside();
  }

  /** Deletes what is kept under a key. */
  discard(key: string): Promise<void> {
    return this.#remove(key);
  }

  /** Takes the part of a segment that did not check out out of use. */
  async dropPart(key: string): Promise<void> {
    this.#parts.delete(key);
    for (const ending of partEndings) await fs.rm(path.join(this.#segments, key + ending), { force: true });
  }

  /** The segment that a native failure speaks of: its message names the file, which may have been set aside since. */
  keyNamedIn(message: string): string | undefined {
    return /([0-9a-f]{64})\.kv/.exec(message)?.[1];
  }

  /**
   * Deletes everything kept of `root` that no other repository's record names. Nobody knows any more whose a segment
   * was that no record names, an earlier state of a file say, or what was set aside: all of those go too. Resolves with
   * the bytes freed.
   */
  async forget(root: string): Promise<number> {
    const before = this.bytes;
    const forgotten = this.recordsOf(root);
    for (const record of forgotten) {
      const name = recordName(record.root, record.fingerprint);
      await fs.rm(path.join(this.#recordsFolder, name), { force: true });
      this.#records.delete(name);
      this.#recordBytes.delete(name);
    }
    await this.#removeUnnamed(() => true);
    if (forgotten.length > 0) await this.#emptyAside();
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
    const names = await fs.readdir(this.#segments);
    for (let at = 0; at < names.length; at += statsAtOnce) {
      await Promise.all(names.slice(at, at + statsAtOnce).map((name) => this.#readSegment(name)));
    }
    // A part whose segment is whole by now is of no use, nor is a journal without its part.
    for (const key of this.#parts.keys()) if (this.#kept.has(key)) await this.dropPart(key);
  }

  async #readSegment(name: string): Promise<void> {
    const file = path.join(this.#segments, name);
    const partEnding = partEndings.find((ending) => name.endsWith(ending));
    if (!name.endsWith(".kv") && partEnding === undefined) {
      // Half a file of an engine that died while it was saving.
      return fs.rm(file, { force: true, recursive: true });
    }
    const { size, mtimeMs } = await fs.stat(file);
    if (partEnding === undefined) {
      this.#kept.set(name.slice(0, -".kv".length), { bytes: size, savedAtMs: mtimeMs });
      return;
    }
    const key = name.slice(0, -partEnding.length);
    const bytes = size + (this.#parts.get(key)?.bytes ?? 0);
    this.#parts.set(key, { bytes, savedAtMs: mtimeMs });
  }

  async #emptySpill(): Promise<void> {
    for (const name of await fs.readdir(this.spillFolder)) {
      await fs.rm(path.join(this.spillFolder, name), { force: true, recursive: true });
    }
  }

  async #readRecords(): Promise<void> {
    for (const name of await fs.readdir(this.#recordsFolder)) {
      const file = path.join(this.#recordsFolder, name);
      if (!name.endsWith(".json")) {
        await fs.rm(file, { force: true, recursive: true });
        continue;
      }
      const [text, { mtimeMs }] = [await fs.readFile(file, "utf8"), await fs.stat(file)];
      const record = parseRecord(parseJson(text));
      if (record === undefined || recordName(record.root, record.fingerprint) !== name) {
        this.#log.warn(`Setting aside the damaged record ${name}`);
        await moveIfThere(file, path.join(this.#aside, `${name}.${Date.now()}`));
        continue;
      }
      this.#records.set(name, record);
      this.#recordBytes.set(name, Buffer.byteLength(text));
      this.#usedAtMs.set(record.root, Math.max(mtimeMs, this.#usedAtMs.get(record.root) ?? 0));
    }
  }

  async #removeOldOrphans(): Promise<void> {
    const oldestMs = Date.now() - orphanMsMax;
    await this.#removeUnnamed((key) => this.#savedAt(key) < oldestMs);
  }

  async #removeUnnamed(chosen: (key: string) => boolean): Promise<void> {
    const named = this.#namedKeys();
    for (const key of this.#keys()) if (!named.has(key) && chosen(key)) await this.#remove(key);
  }

  async #remove(key: string): Promise<void> {
    if (this.#kept.delete(key)) await fs.rm(this.pathOf(key), { force: true });
    if (this.#parts.has(key)) await this.dropPart(key);
  }

  /** What may go, the least needed first. */
  #removable(): readonly string[] {
    const named = this.#namedKeys();
    const orphans = this.#keys().filter((key) => !named.has(key));
    const records = this.records().toSorted((a, b) => this.#usedAt(a.root) - this.#usedAt(b.root));
    const inUse = new Set(records.filter(({ root }) => this.#held.has(root)).flatMap(keysOf));
    const idle = records.filter(({ root }) => !this.#held.has(root)).flatMap(keysOf);
    return [
      ...orphans.sort((a, b) => this.#savedAt(a) - this.#savedAt(b)),
      ...new Set(idle.filter((key) => !inUse.has(key))),
    ];
  }

  #keys(): string[] {
    return [...new Set([...this.#kept.keys(), ...this.#parts.keys()])];
  }

  #savedAt(key: string): number {
    return Math.max(this.#kept.get(key)?.savedAtMs ?? 0, this.#parts.get(key)?.savedAtMs ?? 0);
  }

  #usedAt(root: string): number {
    return this.#usedAtMs.get(root) ?? 0;
  }

  async #emptyAside(): Promise<void> {
    for (const name of await fs.readdir(this.#aside)) await fs.rm(path.join(this.#aside, name), { force: true });
  }

  async #removeOldAside(): Promise<void> {
    const names = await fs.readdir(this.#aside);
    const byAge = names.sort((a, b) => asideTime(b) - asideTime(a));
    for (const name of byAge.slice(asideMax)) await fs.rm(path.join(this.#aside, name), { force: true });
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

/** Files set aside end in the time at which they were. */
function asideTime(name: string): number {
  return Number(/\.(\d+)(\.kv)?$/.exec(name)?.[1] ?? 0);
}

function* bytesIn(kept: ReadonlyMap<string, Kept>): Iterable<number> {
  for (const { bytes } of kept.values()) yield bytes;
}

function sum(values: Iterable<number>): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}
