/** The file by which clients find the engine, and engines each other. Small: the extension's bundle carries it. */

import * as fs from "node:fs/promises";

export interface LockFile {
  readonly pid: number;
  readonly version: string;
  /** When it was bundled; 0 when it does not say. */
  readonly build: number;
  readonly protocolVersion: number;
  /** Unix socket path or pipe name. */
  readonly address: string;
  /** Random; only who may read the user's files can know it. */
  readonly token: string;
}

/** What the lock says, or nothing when it is absent or not whole. */
export async function readLock(file: string): Promise<LockFile | undefined> {
  try {
    return parse(JSON.parse(await fs.readFile(file, "utf8")));
  } catch {
    return undefined;
  }
}

function parse(value: unknown): LockFile | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const lock: Partial<Record<keyof LockFile, unknown>> = value;
  const { pid, version, build, protocolVersion, address, token } = lock;
  if (typeof pid !== "number" || typeof protocolVersion !== "number") return undefined;
  if (typeof version !== "string" || typeof address !== "string" || typeof token !== "string") return undefined;
  return { pid, version, build: typeof build === "number" ? build : 0, protocolVersion, address, token };
}
