/**
 * One engine per user: who holds the lock file listens, everybody else leaves.
 *
 * Taking it is guarded by a second file that exists only for that moment, so that of two engines which both find a
 * dead one's lock exactly one replaces it. The socket is bound before the lock is written: a lock whose process lives
 * and whose socket refuses is therefore stale.
 */

import { randomBytes } from "node:crypto";
import * as fs from "node:fs/promises";
import * as net from "node:net";
import * as path from "node:path";
import { codeOf } from "./errors";
import { readLock, type LockFile } from "./lockFile";
import type { DataPaths } from "./paths";
import { protocolVersion } from "./protocol";
import { engineBuild } from "./version";

/** A claim older than this was left by an engine that died in the moment of taking the lock. */
const claimMsMax = 10_000;
const claimRetryMs = 25;

/** Owns the lock file and the listening socket. */
export class EngineLock {
  readonly token: string;
  readonly server: net.Server;
  readonly #paths: DataPaths;
  #released = false;

  private constructor(paths: DataPaths, token: string, server: net.Server) {
    this.#paths = paths;
    this.token = token;
    this.server = server;
  }

  /** Nothing when another engine is alive and listens. Connections are accepted from here on: handle them at once. */
  static async take(
    paths: DataPaths,
    version: string,
    onConnection: (socket: net.Socket) => void,
    build = engineBuild,
  ): Promise<EngineLock | undefined> {
    await fs.mkdir(paths.folder, { recursive: true, mode: 0o700 });
    await claim(paths.claim);
    try {
      const existing = await readLock(paths.lock);
      if (existing !== undefined && existing.pid !== process.pid && (await answers(existing.address))) return undefined;
      const server = net.createServer(onConnection);
      await listen(server, paths.socket);
      const token = randomBytes(32).toString("hex");
      const lock: LockFile = { pid: process.pid, version, build, protocolVersion, address: paths.socket, token };
      await writeAside(paths.lock, JSON.stringify(lock));
      return new EngineLock(paths, token, server);
    } finally {
      await fs.rm(paths.claim, { force: true });
    }
  }

  /** Stops listening and removes the lock, if it is still this engine's. Connections that are open stay. */
  async release(): Promise<void> {
    if (this.#released) return;
    this.#released = true;
    const existing = await readLock(this.#paths.lock);
    // Closing a Unix server removes its socket file, so it must happen before somebody else may bind the same name.
    this.server.close();
    if (existing?.pid === process.pid) await fs.rm(this.#paths.lock, { force: true });
  }
}

async function claim(file: string): Promise<void> {
  for (;;) {
    try {
      const handle = await fs.open(file, "wx", 0o600);
      await handle.close();
      return;
    } catch (error) {
      if (codeOf(error) !== "EEXIST") throw error;
    }
    const age = await fs.stat(file).then(
      (stat) => Date.now() - stat.mtimeMs,
      () => 0,
    );
    if (age > claimMsMax) await fs.rm(file, { force: true });
    await new Promise((resolve) => setTimeout(resolve, claimRetryMs));
  }
}

function answers(address: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(address);
    const done = (alive: boolean) => () => {
      socket.destroy();
      resolve(alive);
    };
    socket.once("connect", done(true));
    socket.once("error", done(false));
  });
}

async function listen(server: net.Server, address: string): Promise<void> {
  const onDisk = !address.startsWith("\\\\");
  if (onDisk) {
    await fs.mkdir(path.dirname(address), { recursive: true, mode: 0o700 });
    await fs.rm(address, { force: true });
  }
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    // The folder is already private; the mask closes the moment between binding and chmod as well.
    const mask = onDisk ? process.umask(0o177) : undefined;
    server.listen(address, () => {
      server.removeListener("error", reject);
      resolve();
    });
    if (mask !== undefined) process.umask(mask);
  });
  if (onDisk) await fs.chmod(address, 0o600);
}

async function writeAside(file: string, text: string): Promise<void> {
  const aside = `${file}.${process.pid}`;
  await fs.writeFile(aside, text, { mode: 0o600 });
  await fs.rename(aside, file);
}
