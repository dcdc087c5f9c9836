/**
 * Where everything of one user lives. Pure; used by the engine and by whoever looks for it.
 *
 * The major version is part of the names that two versions could fight over.
 */

import { createHash } from "node:crypto";
import * as os from "node:os";
import * as path from "node:path";

/** Of the socket name and the store; raised when an old engine could not live beside a new one. */
export const majorVersion = 1;

/** Unix socket addresses hold about a hundred bytes; macOS has the smallest limit, 104 with the final zero. */
const socketPathBytesMax = 100;

export interface DataPaths {
  readonly folder: string;
  /** Pid, version, address and token of the running engine; readable by its owner only. */
  readonly lock: string;
  /** Held for the moment in which an engine takes the lock. */
  readonly claim: string;
  /** Unix socket or named pipe. */
  readonly socket: string;
  readonly logs: string;
  readonly models: string;
  readonly contexts: string;
}

/** `NOSA_HOME` when set, else the platform's usual place. */
export function dataFolder(env: NodeJS.ProcessEnv, platform: NodeJS.Platform = process.platform): string {
  const chosen = env["NOSA_HOME"];
  if (chosen !== undefined && chosen !== "") return path.resolve(chosen);
  const home = os.homedir();
  if (platform === "win32") return path.join(env["LOCALAPPDATA"] ?? path.join(home, "AppData", "Local"), "nosa");
  if (platform === "darwin") return path.join(home, "Library", "Application Support", "nosa");
  const data = env["XDG_DATA_HOME"];
  return path.join(data !== undefined && path.isAbsolute(data) ? data : path.join(home, ".local", "share"), "nosa");
}

export function dataPaths(folder: string, platform: NodeJS.Platform = process.platform): DataPaths {
  return {
    folder,
    lock: path.join(folder, `engine-v${majorVersion}.lock`),
    claim: path.join(folder, `engine-v${majorVersion}.claim`),
    socket: socketPath(folder, platform),
    logs: path.join(folder, "logs"),
    models: path.join(folder, "models"),
    contexts: path.join(folder, `contexts-v${majorVersion}`),
  };
}

function socketPath(folder: string, platform: NodeJS.Platform): string {
  const short = createHash("sha256").update(folder).digest("hex").slice(0, 16);
  if (platform === "win32") return `\\\\.\\pipe\\nosa-v${majorVersion}-${short}`;
  const inside = path.join(folder, `engine-v${majorVersion}.sock`);
  if (Buffer.byteLength(inside) <= socketPathBytesMax) return inside;
  // The folder's name is too long for a socket address: a private folder of the temporary folder holds it instead.
  return path.join(os.tmpdir(), `nosa-${short}`, `v${majorVersion}.sock`);
}
