import * as fs from "node:fs";
import * as net from "node:net";
import { describe, expect, it, onTestFinished } from "vitest";
import { EngineLock } from "../../../engine/lock";
import { readLock } from "../../../engine/lockFile";
import { dataPaths } from "../../../engine/paths";
import { temporaryFolder } from "../../support/folders";

async function take(paths: ReturnType<typeof dataPaths>): Promise<EngineLock | undefined> {
  const lock = await EngineLock.take(paths, "1.0.0", (socket) => socket.destroy());
  if (lock !== undefined) onTestFinished(() => lock.release());
  return lock;
}

/** A process that has ended. */
function deadPid(): number {
  for (let pid = 4_000_000; ; pid++) {
    try {
      process.kill(pid, 0);
    } catch {
      return pid;
    }
  }
}

describe("EngineLock", () => {
  it("says where the engine listens, to its owner only", async () => {
    const paths = dataPaths(temporaryFolder());
    const lock = await take(paths);
    expect(await readLock(paths.lock)).toMatchObject({
      pid: process.pid,
      version: "1.0.0",
      address: paths.socket,
      token: lock?.token,
    });
    expect(fs.statSync(paths.lock).mode & 0o077).toBe(0);
    expect(fs.statSync(paths.socket).mode & 0o077).toBe(0);
    expect(fs.existsSync(paths.claim)).toBe(false);
  });

  it("is not taken from an engine that answers", async () => {
    const paths = dataPaths(temporaryFolder());
    const other = net.createServer((socket) => socket.destroy()).listen(paths.socket);
    onTestFinished(() => void other.close());
    await new Promise((resolve) => other.once("listening", resolve));
    // Somebody else's pid that certainly lives.
    fs.writeFileSync(
      paths.lock,
      JSON.stringify({ pid: process.ppid, version: "0", protocolVersion: 1, address: paths.socket, token: "t" }),
    );
    expect(await take(paths)).toBeUndefined();
    expect((await readLock(paths.lock))?.pid).toBe(process.ppid);
  });

  it("is taken over from an engine that died and left lock, socket and claim behind", async () => {
    const paths = dataPaths(temporaryFolder());
    fs.writeFileSync(paths.socket, "");
    fs.writeFileSync(paths.claim, "");
    const longAgo = new Date(Date.now() - 60_000);
    fs.utimesSync(paths.claim, longAgo, longAgo);
    fs.writeFileSync(
      paths.lock,
      JSON.stringify({ pid: deadPid(), version: "0", protocolVersion: 1, address: paths.socket, token: "t" }),
    );
    expect(await take(paths)).toBeDefined();
    expect((await readLock(paths.lock))?.pid).toBe(process.pid);
  });

  it("is taken when what is there is not a lock", async () => {
    const paths = dataPaths(temporaryFolder());
    fs.writeFileSync(paths.lock, "{ half a");
    expect(await take(paths)).toBeDefined();
  });

  it("leaves nothing behind when released, and may be released twice", async () => {
    const paths = dataPaths(temporaryFolder());
    const lock = await take(paths);
    await lock?.release();
    await lock?.release();
    expect(fs.existsSync(paths.lock)).toBe(false);
    expect(fs.existsSync(paths.socket)).toBe(false);
  });
});
