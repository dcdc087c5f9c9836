/**
 * A model's file from the hub: resumed where it stopped, checked against what the hub says of it.
 */

import { createHash } from "node:crypto";
import { open } from "node:fs/promises";
import { fileDownloadInfo, pathsInfo } from "@huggingface/hub";
import { Cancelled, throwIfAborted } from "../errors";
import { hashInto, remove, requireRoom, sizeOf } from "./files";
import type { HubFile } from "./manifest";

export interface HubOptions {
  /** Base address of a mirror, or "". */
  readonly mirror: string;
  /** Bytes of the file that are there, and all of them. */
  readonly onBytes: (done: number, total: number) => void;
  readonly signal: AbortSignal;
}

/** What the hub says of a file. */
export interface HubFacts {
  readonly bytes: number;
  readonly sha256: string;
  readonly address: string;
}

/** The hub, or the mirror, cannot be reached or does not have the file: another way has to be taken. */
export class HubUnavailable extends Error {}
/** What arrived is not what the hub said it would be. */
export class HubMismatch extends Error {}

const answerMsMax = 10_000;
/** A download that brings nothing for so long is taken up anew. */
const stallMs = 60_000;
const attemptsMax = 5;
const pauseMs = 1_000;

/** Rejects with HubUnavailable. */
export async function hubFacts(file: HubFile, options: Omit<HubOptions, "onBytes">): Promise<HubFacts> {
  const params = {
    repo: { type: "model" as const, name: file.repository },
    revision: file.revision,
    ...(options.mirror === "" ? {} : { hubUrl: options.mirror.replace(/\/+$/, "") }),
    fetch: (input: string | URL | Request, init?: RequestInit) =>
      fetch(input, { ...init, signal: AbortSignal.any([options.signal, AbortSignal.timeout(answerMsMax)]) }),
  };
  try {
    const [facts] = await pathsInfo({ ...params, paths: [file.file] });
    const info = await fileDownloadInfo({ ...params, path: file.file });
    if (facts?.lfs === undefined || info === null) throw new HubUnavailable(`it has no ${file.file}`);
    return { bytes: facts.lfs.size, sha256: facts.lfs.oid, address: info.url };
  } catch (error) {
    throwIfAborted(options.signal);
    if (error instanceof HubUnavailable) throw error;
    throw new HubUnavailable(reasonOf(error), { cause: error });
  }
}

/**
 * Downloads into `partial`, going on after what it holds already. Resolves when size and SHA-256 are right; else `partial` is removed and HubMismatch
 * thrown. Rejects with HubUnavailable when the connection fails again and again; `partial` stays for the next time.
 */
export async function downloadFromHub(
  facts: HubFacts,
  partial: string,
  folder: string,
  options: HubOptions,
): Promise<void> {
  const { signal } = options;
  if ((await sizeOf(partial)) > facts.bytes) await remove(partial);
  await requireRoom(folder, facts.bytes - (await sizeOf(partial)));
  for (let attempt = 1; (await sizeOf(partial)) < facts.bytes; attempt++) {
    const before = await sizeOf(partial);
    try {
      await fetchRest(facts, partial, options);
    } catch (error) {
      throwIfAborted(signal);
      if (isLocal(error)) throw error;
      // An attempt that brought something does not count.
      if ((await sizeOf(partial)) > before) attempt = 0;
      if (attempt >= attemptsMax) throw new HubUnavailable(reasonOf(error), { cause: error });
      await pause(pauseMs * attempt, signal);
    }
  }
  const hash = createHash("sha256");
  await hashInto(hash, partial, { start: 0, end: facts.bytes }, signal);
  if ((await sizeOf(partial)) === facts.bytes && hash.digest("hex") === facts.sha256) return;
  await remove(partial);
  throw new HubMismatch("what arrived is not the file that the hub described");
}

async function fetchRest(facts: HubFacts, partial: string, { onBytes, signal }: HubOptions): Promise<void> {
  const start = await sizeOf(partial);
  const stall = new AbortController();
  let timer = setTimeout(() => stall.abort(), stallMs);
  try {
    const response = await fetch(facts.address, {
      headers: start > 0 ? { Range: `bytes=${start}-` } : {},
      signal: AbortSignal.any([signal, stall.signal]),
    });
    if (!response.ok || response.body === null) throw new Error(`the server answered ${response.status}`);
    // A server that knows no ranges sends everything, and a wrong range would be found by the hash alone.
    const resumes =
      response.status === 206 && response.headers.get("content-range")?.startsWith(`bytes ${start}-`) === true;
    const handle = await open(partial, resumes ? "a" : "w");
    let done = resumes ? start : 0;
    try {
      const reader = response.body.getReader();
      for (let read = await reader.read(); !read.done; read = await reader.read()) {
        const chunk = read.value;
        throwIfAborted(signal);
        clearTimeout(timer);
        timer = setTimeout(() => stall.abort(), stallMs);
        done += chunk.length;
        if (done > facts.bytes) throw new Error("the server sent more than the file holds");
        await handle.write(chunk);
        onBytes(done, facts.bytes);
      }
    } finally {
      await handle.close();
    }
    if (done < facts.bytes) throw new Error("the connection ended early");
  } finally {
    clearTimeout(timer);
  }
}

/** fetch hides what happened one level down. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { cause } = error;
  return cause instanceof Error && cause.message !== "" ? cause.message : error.message;
}

/** Whether the fault lies with this machine's disk rather than with the connection. */
function isLocal(error: unknown): boolean {
  return error instanceof Error && "syscall" in error && (error.syscall === "write" || error.syscall === "open");
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const stop = (): void => {
      clearTimeout(timer);
      reject(new Cancelled());
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal.addEventListener("abort", stop, { once: true });
  });
}
