/**
 * How much of the machine what was read may take, and how many tokens that is. Pure.
 *
 * Of the memory a share goes to KV blocks, which come and go; the rest to what selection reads for every token it may
 * choose, which stays. So the rest decides how large a context can be, and the blocks how often disk is asked.
 */

import type { ModelInfo } from "../native/addon";
import type { EngineSettings } from "../protocol";

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
const blockShare = 0.6;

/** Of a disk budget, for blocks that no saved segment holds: tails, and what is just being read. */
const spillShare = 0.1;

/** What native tables take for one block of one layer and KV head: its place in each tier, its checksum, its holders. */
const tableBytesPerExtent = 96;

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

export function blockBytesOf(memoryBytes: number): number {
  return Math.floor(memoryBytes * blockShare);
}

export function spillBytesOf(diskBytes: number): number {
  return Math.floor(diskBytes * spillShare);
}

type Shape = Pick<ModelInfo, "kvBytesPerToken" | "sideCarBytesPerToken" | "layers" | "kvHeads" | "blockTokens">;

export interface MemoryPlan {
  readonly memoryBytes: number;
  readonly blockBytes: number;
  readonly diskBytes: number;
  /** So many tokens have all their KV in memory at once. */
  readonly residentTokens: number;
  /** No more than this can be attended to: by memory, and by disk. */
  readonly contextTokensMax: number;
}

export function memoryPlan(memoryBytes: number, diskBytes: number, shape: Shape): MemoryPlan {
  const blockBytes = blockBytesOf(memoryBytes);
  const tables = (shape.layers * shape.kvHeads * tableBytesPerExtent) / shape.blockTokens;
  const byMemory = Math.floor((memoryBytes - blockBytes) / (shape.sideCarBytesPerToken + tables));
  const byDisk = Math.floor((diskBytes - spillBytesOf(diskBytes)) / perToken(shape));
  return {
    memoryBytes,
    blockBytes,
    diskBytes,
    residentTokens: Math.floor(blockBytes / shape.kvBytesPerToken),
    contextTokensMax: Math.max(0, Math.min(byMemory, byDisk)),
  };
}

/** On disk a token has its KV and what selection keeps of it. */
function perToken({ kvBytesPerToken, sideCarBytesPerToken }: Shape): number {
  return kvBytesPerToken + sideCarBytesPerToken;
}

/** One line for the log. */
export function describePlan(plan: MemoryPlan): string {
  const { memoryBytes, blockBytes, diskBytes, residentTokens, contextTokensMax } = plan;
  return (
    `Plan: ${gigabytes(memoryBytes)} of memory, ${gigabytes(blockBytes)} of it for KV (${residentTokens} tokens at once), ` +
    `the rest for selection; ${gigabytes(diskBytes)} of disk; contexts of up to ${contextTokensMax} tokens`
  );
}

function gigabytes(bytes: number): string {
  return `${(bytes / gigabyte).toFixed(2)} GB`;
}
