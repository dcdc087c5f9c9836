/**
 * How much of the machine what was read may take, how many tokens that is, and what the process takes with it. Pure.
 *
 * Of the memory a share goes to KV blocks, which come and go; the rest to what selection reads for every token it may
 * choose, which stays. So the rest decides how large a context can be, and the blocks how often disk is asked.
 */

import { limits } from "../config";
import type { ModelInfo } from "../native/addon";
import type { EngineSettings } from "../protocol";
import { selectionBudget } from "./selection";

export interface Machine {
  readonly memoryBytes: number;
}

const gigabyte = 1e9;

/** Of the machine's memory. */
const memoryShare = 1 / 8;
const memoryLeast = 0.5 * gigabyte;
const memoryMost = 8 * gigabyte;

/** Of the disk that is free or ours. */
const diskShare = 1 / 4;
const diskLeast = 1 * gigabyte;
const diskMost = 40 * gigabyte;

/** Of a memory budget, for KV blocks. */
const blockShare = 0.5;

/** Of a disk budget, for blocks that no saved segment holds: tails, and what is just being read. */
const spillShare = 0.1;

/** What native tables take for one block of one layer and KV head: its place in each tier, its checksum, its holders. */
const tableBytesPerExtent = 96;

/** Extents come in whole pages, and memory for them in slabs. */
const pageBytes = 4096;
const slabExtents = 64;

/** Blocks that a step's own tokens go to, while they are computed. */
const freshBlocks = 2;

/** Kept tails have words of their own, for which selection keeps as much as for others. */
const tailTokens = (limits.chatTailsMax + limits.completionTailsMax + 1) * 1_024;

/** Of the process with no model: its program, and the heap of its thread. */
const programBytes = 34e6;

/** Of the tokenizer, for each word of the vocabulary. */
const bytesPerWord = 350;

/** 0 in the settings: a share of the machine's. */
export function memoryBudget({ memoryGigabytes }: Pick<EngineSettings, "memoryGigabytes">, machine: Machine): number {
  if (memoryGigabytes > 0) return Math.round(memoryGigabytes * gigabyte);
  return Math.round(Math.min(memoryMost, Math.max(memoryLeast, machine.memoryBytes * memoryShare)));
}

/** 0 in the settings: a share of what is free, counting what is used already. */
export function diskBudget(
  { diskGigabytes }: Pick<EngineSettings, "diskGigabytes">,
  freeBytes: number,
  usedBytes: number,
): number {
  if (diskGigabytes > 0) return Math.round(diskGigabytes * gigabyte);
  return Math.round(Math.min(diskMost, Math.max(diskLeast, (freeBytes + usedBytes) * diskShare)));
}

export function spillBytesOf(diskBytes: number): number {
  return Math.floor(diskBytes * spillShare);
}

type Shape = Pick<
  ModelInfo,
  "kvBytesPerToken" | "sideCarBytesPerToken" | "layers" | "kvHeads" | "blockTokens" | "vocabSize" | "workBytes"
>;

export interface MemoryPlan {
  /** For what was read: what was asked for, or the least that one step of the model needs. */
  readonly memoryBytes: number;
  readonly askedBytes: number;
  /** Of it, for KV; the rest is for selection. */
  readonly blockBytes: number;
  /** Beside it: the program, the tokenizer and the model's buffers. Weights are mapped from their file, and not counted. */
  readonly engineBytes: number;
  readonly diskBytes: number;
  /** So many tokens have all their KV in memory at once. */
  readonly residentTokens: number;
  /** No more than this can be attended to: by memory, and by disk. */
  readonly contextTokensMax: number;
}

export function memoryPlan(askedBytes: number, diskBytes: number, shape: Shape): MemoryPlan {
  const memoryBytes = Math.max(askedBytes, Math.ceil(stepBytes(shape) / blockShare));
  const blockBytes = Math.floor(memoryBytes * blockShare);
  const perToken = selectionBytesPerToken(shape);
  const byMemory = Math.floor((memoryBytes - blockBytes) / perToken) - tailTokens;
  const byDisk = Math.floor(
    (diskBytes - spillBytesOf(diskBytes)) / (shape.kvBytesPerToken + shape.sideCarBytesPerToken),
  );
  return {
    memoryBytes,
    askedBytes,
    blockBytes,
    engineBytes: programBytes + shape.vocabSize * bytesPerWord + shape.workBytes,
    diskBytes,
    residentTokens: Math.floor(blockBytes / shape.kvBytesPerToken),
    contextTokensMax: Math.max(0, Math.min(byMemory, byDisk)),
  };
}

/** What one step attends to, in all layers. With less, every layer would put out what the next step begins with. */
function stepBytes({ kvBytesPerToken, blockTokens, layers, kvHeads }: Shape): number {
  const extents = layers * kvHeads;
  const extentBytes = Math.ceil((kvBytesPerToken * blockTokens) / extents / pageBytes) * pageBytes;
  return ((selectionBudget.totalBlocks + freshBlocks) * extents + slabExtents) * extentBytes;
}

/** In memory wherever the token's KV is: its side-car, its part of the tables, and of the scores of 64 queries at once. */
function selectionBytesPerToken({ sideCarBytesPerToken, layers, kvHeads, blockTokens }: Shape): number {
  const tables = (layers * kvHeads * tableBytesPerExtent) / blockTokens;
  const scores = 4 * kvHeads;
  return sideCarBytesPerToken + tables + scores;
}

/** One line for the log and the status. */
export function describePlan(plan: MemoryPlan): string {
  const { memoryBytes, blockBytes, engineBytes, diskBytes, residentTokens, contextTokensMax } = plan;
  return (
    `Plan: ${gigabytes(memoryBytes)} of memory for what is read, ${gigabytes(blockBytes)} of it for KV ` +
    `(${residentTokens} tokens at once), the rest for selection; ${gigabytes(engineBytes)} for the engine itself, the ` +
    `model's weights not counted; ${gigabytes(diskBytes)} of disk; contexts of up to ${contextTokensMax} tokens`
  );
}

/** Why more memory is taken than was asked for; "" when it is not. */
export function planNote({ memoryBytes, askedBytes }: MemoryPlan): string {
  if (memoryBytes <= askedBytes) return "";
  return `One step of this model attends to more than nosa.memoryGigabytes of ${gigabytes(askedBytes)} holds; it takes ${gigabytes(memoryBytes)}.`;
}

function gigabytes(bytes: number): string {
  return `${(bytes / gigabyte).toFixed(2)} GB`;
}
