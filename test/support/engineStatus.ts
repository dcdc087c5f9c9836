/** What an engine says of itself, for tests of those who show it: at rest, with one repository that was read. */

import type { ContextStatus, EngineStatus } from "../../engine/protocol";

export function contextStatus(change: Partial<ContextStatus> = {}): ContextStatus {
  return {
    root: "/code/shop",
    files: 41,
    tokens: 12_345,
    complete: true,
    attendedBlocks: 0,
    totalBlocks: 0,
    policy: "full",
    blocksRead: 0,
    selection: "adapter",
    ...change,
  };
}

export function engineStatus(change: Partial<EngineStatus> = {}): EngineStatus {
  return {
    engineVersion: "0.1.0",
    model: { id: "half", name: "Qwen2.5-Coder 0.5B", loaded: true },
    device: "CPU AVX-512 VNNI",
    contexts: [contextStatus()],
    activity: { kind: "idle" },
    clients: 1,
    kvBytes: 0,
    memory: { bytes: 0, bytesMax: 0, diskBytes: 0, diskBytesMax: 0, diskBytesRead: 0 },
    problem: "",
    ...change,
  };
}
