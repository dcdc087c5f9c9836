/** Whether this machine has a GPU that the CUDA part can use: asked in a process of its own, for a broken driver takes it along. */

import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import * as path from "node:path";
import * as z from "zod/mini";

/** What `NativeAddon.probeGpu` gives, as it comes out of the other process. */
const probeSchema = z.object({
  usable: z.boolean(),
  reason: z.string(),
  gpu: z.optional(z.string()),
  freeBytes: z.optional(z.number()),
  totalBytes: z.optional(z.number()),
});

export type GpuFound = z.infer<typeof probeSchema>;

export interface GpuOptions {
  readonly addonPath: string;
  readonly libraryPath: string;
}

/** The CUDA part beside the addon, wherever that is. */
export function cudaLibraryIn(folder: string): string {
  return path.join(folder, process.platform === "win32" ? "nosa_cuda.dll" : "libnosa_cuda.so");
}

/** A driver that has to start its GPU may take some seconds. */
const timeoutMs = 30_000;

/** Never rejects: whatever goes wrong is why the CPU computes. */
export async function findGpu({ addonPath, libraryPath }: GpuOptions): Promise<GpuFound> {
  if (!existsSync(libraryPath)) return { usable: false, reason: "This package has no CUDA part." };
  const script = "process.stdout.write(JSON.stringify(require(process.argv[1]).probeGpu(process.argv[2])))";
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      ["-e", script, addonPath, libraryPath],
      // The editor's own binary is Node only when told so.
      { env: { ...process.env, ELECTRON_RUN_AS_NODE: "1" }, timeout: timeoutMs, windowsHide: true },
      (error, stdout) => {
        resolve(error === null ? parse(stdout) : { usable: false, reason: reasonOf(error) });
      },
    );
  });
}

function parse(text: string): GpuFound {
  try {
    return z.parse(probeSchema, JSON.parse(text));
  } catch {
    return { usable: false, reason: "Looking for a GPU gave no answer." };
  }
}

function reasonOf(error: Error & { signal?: NodeJS.Signals | null | undefined; killed?: boolean | undefined }): string {
  if (error.killed === true) return `Looking for a GPU took longer than ${timeoutMs / 1000} s.`;
  if (typeof error.signal === "string") return `Looking for a GPU ended the process that did it (${error.signal}).`;
  return "Looking for a GPU failed.";
}
