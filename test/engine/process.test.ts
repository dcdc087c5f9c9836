import { spawn } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { defaultSettings } from "../../engine/config";
import { connectToEngine, type ConnectOptions, type EngineSocket } from "../../engine/connect";
import { readLock } from "../../engine/lockFile";
import { dataPaths } from "../../engine/paths";
import { protocolVersion } from "../../engine/protocol";
import { engineVersion } from "../../engine/version";
import { isAlive } from "../../engine/util/isAlive";
import { bundleEngine, type EngineBundle } from "../support/engineBundle";
import { EngineTestClient } from "../support/engineHarness";
import { temporaryFolder, writeFiles } from "../support/folders";

let current: EngineBundle;
let older: EngineBundle;
let bundles: string;

beforeAll(async () => {
  bundles = fs.mkdtempSync(path.join(process.env["TMPDIR"] ?? "/tmp", "nosa-bundles-"));
  current = await bundleEngine(path.join(bundles, "current"));
  older = await bundleEngine(path.join(bundles, "older"), "0.0.1");
});

afterAll(() => fs.rmSync(bundles, { recursive: true, force: true }));

interface Home {
  readonly folder: string;
  readonly env: NodeJS.ProcessEnv;
  connect(options?: Partial<ConnectOptions>): Promise<EngineSocket>;
}

/** A data folder of its own; every engine that was started there is ended with the test. */
function home(env: NodeJS.ProcessEnv = {}): Home {
  const folder = temporaryFolder();
  const all = { ...process.env, NOSA_HOME: folder, NOSA_MODELS_HOME: path.join(folder, "models"), ...env };
  const pids = new Set<number>();
  onTestFinished(() => {
    for (const pid of [...pids, ...startedIn(folder)]) if (isAlive(pid)) process.kill(pid, "SIGKILL");
  });
  const connect = async (options: Partial<ConnectOptions> = {}): Promise<EngineSocket> => {
    const signal = new AbortController().signal;
    const connected = await connectToEngine({
      engineFile: current.engineFile,
      runtime: process.execPath,
      log: () => undefined,
      signal,
      env: all,
      ...options,
    });
    onTestFinished(() => void connected.socket.destroy());
    // A lock may name this very process: then the test is to fail, not to end.
    if (connected.pid !== process.pid) pids.add(connected.pid);
    return connected;
  };
  return { folder, env: all, connect };
}

/** Engines that lost the race for the folder may still be starting in it. Nobody where the system shows no environments. */
function startedIn(folder: string): number[] {
  if (!fs.existsSync("/proc/self/environ")) return [];
  return fs.readdirSync("/proc").flatMap((name) => {
    try {
      const variables = fs.readFileSync(`/proc/${Number.parseInt(name, 10)}/environ`, "utf8").split("\0");
      return variables.includes(`NOSA_HOME=${folder}`) ? [Number(name)] : [];
    } catch {
      return [];
    }
  });
}

async function eventually(check: () => boolean): Promise<void> {
  const until = Date.now() + 15_000;
  while (!check()) {
    if (Date.now() > until) throw new Error("It did not come true within 15 s");
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

async function introduced(connected: EngineSocket): Promise<EngineTestClient> {
  const client = EngineTestClient.over(connected.socket);
  await client.introduce({ protocolVersion, token: connected.token, client: "test", settings: defaultSettings });
  return client;
}

function runCli(bundle: EngineBundle, args: readonly string[], env: NodeJS.ProcessEnv) {
  return new Promise<{ code: number | null; out: string; err: string }>((resolve) => {
    const child = spawn(process.execPath, [bundle.cliFile, ...args], { env, stdio: ["ignore", "pipe", "pipe"] });
    let [out, err] = ["", ""];
    child.stdout.on("data", (data: Buffer) => (out += data.toString()));
    child.stderr.on("data", (data: Buffer) => (err += data.toString()));
    child.once("close", (code) => resolve({ code, out, err }));
  });
}

describe("finding and starting", () => {
  it("starts an engine of its own, detached, and finds it again", async () => {
    const { connect, folder } = home();
    const first = await connect();
    expect(first.pid).not.toBe(process.pid);
    expect(first.engineVersion).toBe(engineVersion);
    const client = await introduced(first);
    expect(await client.request("nosa/status", {})).toMatchObject({ engineVersion, clients: 1, model: null });
    expect((await connect()).pid).toBe(first.pid);
    expect(fs.statSync(dataPaths(folder).socket).mode & 0o077).toBe(0);
    expect(fs.statSync(dataPaths(folder).lock).mode & 0o077).toBe(0);
  });

  it("starts one engine when several windows open at the same moment", async () => {
    const { connect } = home();
    const all = await Promise.all(Array.from({ length: 6 }, () => connect()));
    expect(new Set(all.map(({ pid }) => pid)).size).toBe(1);
  });

  it("starts another one after it was killed, whatever it left behind", async () => {
    const { connect, folder } = home();
    const first = await connect();
    process.kill(first.pid, "SIGKILL");
    await eventually(() => !isAlive(first.pid));
    expect(fs.existsSync(dataPaths(folder).lock)).toBe(true);
    expect(fs.existsSync(dataPaths(folder).socket)).toBe(true);
    const second = await connect();
    expect(second.pid).not.toBe(first.pid);
    await introduced(second);
  });

  it("does not trust a lock whose pid now belongs to somebody else", async () => {
    const { connect, folder } = home();
    const { lock, socket } = dataPaths(folder);
    writeFiles(folder, {
      [path.basename(lock)]: JSON.stringify({
        pid: process.pid,
        version: engineVersion,
        build: 0,
        protocolVersion,
        address: socket,
        token: "t",
      }),
    });
    const connected = await connect();
    expect(connected.pid).not.toBe(process.pid);
    await introduced(connected);
  });

  it("works in a folder whose name is too long for a socket", async () => {
    const folder = path.join(temporaryFolder(), "a-rather-long-folder-name-".repeat(4));
    const { connect } = home({ NOSA_HOME: folder });
    await introduced(await connect());
  });

  it("says in a sentence why it could not", async () => {
    const missing = home().connect({ engineFile: "/nowhere/engine.js" });
    await expect(missing).rejects.toMatchObject({
      message: expect.stringContaining("is missing at /nowhere/engine.js") as string,
    });
    const unwritable = home({ NOSA_HOME: "/dev/null/nosa" }).connect();
    await expect(unwritable).rejects.toMatchObject({
      message: expect.stringContaining("cannot write to its data folder") as string,
    });
    const broken = path.join(temporaryFolder(), "engine.js");
    fs.writeFileSync(broken, "process.exit(3);\n");
    const at = Date.now();
    await expect(home().connect({ engineFile: broken })).rejects.toMatchObject({
      message: expect.stringContaining("stopped while starting (code 3)") as string,
    });
    expect(Date.now() - at).toBeLessThan(10_000);
  });

  it("gives up when told to", async () => {
    const stop = new AbortController();
    const never = path.join(temporaryFolder(), "engine.js");
    fs.writeFileSync(never, "setTimeout(() => undefined, 4000);\n");
    const connecting = home().connect({ engineFile: never, signal: stop.signal });
    setTimeout(() => stop.abort(), 100);
    await expect(connecting).rejects.toThrow();
  });
});

describe("two versions", () => {
  it("a newer one asks an older one to leave, and takes its place", async () => {
    const { connect } = home();
    const old = await connect({ engineFile: older.engineFile, version: "0.0.1" });
    const oldClient = await introduced(old);
    let lost = false;
    oldClient.connection.onClose(() => (lost = true));
    const fresh = await connect();
    expect(fresh.engineVersion).toBe(engineVersion);
    expect(fresh.pid).not.toBe(old.pid);
    expect(isAlive(old.pid)).toBe(false);
    await introduced(fresh);
    await eventually(() => lost);
    // The older window finds the newer engine and works with it.
    expect((await connect({ engineFile: older.engineFile, version: "0.0.1" })).pid).toBe(fresh.pid);
  });

  it("one of the same version that was built later does the same, and one that was built before does not", async () => {
    const { connect } = home();
    const first = await connect({ build: 5 });
    const build = Date.now() + 60_000;
    const rebuilt = await bundleEngine(path.join(bundles, "rebuilt"), undefined, build);
    const second = await connect({ engineFile: rebuilt.engineFile, build });
    expect(second.pid).not.toBe(first.pid);
    expect(isAlive(first.pid)).toBe(false);
    expect((await connect({ build: 5 })).pid).toBe(second.pid);
  });

  it("one that speaks another protocol is told so by kind", async () => {
    const { connect, folder } = home();
    const connected = await connect();
    const lock = await readLock(dataPaths(folder).lock);
    fs.writeFileSync(dataPaths(folder).lock, JSON.stringify({ ...lock, protocolVersion: protocolVersion + 1 }));
    await expect(connect()).rejects.toMatchObject({ kind: "versionMismatch" });
    expect(isAlive(connected.pid)).toBe(true);
  });
});

describe("leaving", () => {
  it("goes when nobody was connected for a while, and leaves nothing behind", async () => {
    const { connect, folder } = home({ NOSA_IDLE_EXIT_MS: "400" });
    const connected = await connect();
    const client = await introduced(connected);
    await new Promise((resolve) => setTimeout(resolve, 900));
    expect(isAlive(connected.pid)).toBe(true);
    client.dispose();
    await eventually(() => !isAlive(connected.pid));
    expect(fs.existsSync(dataPaths(folder).lock)).toBe(false);
    expect(fs.existsSync(dataPaths(folder).socket)).toBe(false);
  });

  it("goes on SIGTERM, and when a client asks it to", async () => {
    const { connect } = home();
    const first = await connect();
    process.kill(first.pid, "SIGTERM");
    await eventually(() => !isAlive(first.pid));
    const second = await connect();
    const client = await introduced(second);
    await client.request("nosa/drain", {});
    await eventually(() => !isAlive(second.pid));
  });

  it("stays when one window closes as LSP says, for the others", async () => {
    const { connect } = home();
    const [one, two] = [await connect(), await connect()];
    const [first, second] = [await introduced(one), await introduced(two)];
    await first.connection.sendRequest("shutdown");
    await first.connection.sendNotification("exit");
    await eventually(() => first.socket.destroyed);
    expect(await second.request("nosa/status", {})).toMatchObject({ clients: 1 });
  });
});

describe("the terminal", () => {
  it("says in one sentence that there is no model, and exits with 1", async () => {
    const { env, connect } = home();
    await connect();
    const root = temporaryFolder();
    writeFiles(root, { "a.ts": "export const a = 1;\n" });
    const { code, out, err } = await runCli(current, ["ask", "--repo", root, "what is a?"], env);
    expect(code).toBe(1);
    expect(out).toBe("");
    const last = err.trim().split("\n").at(-1) ?? "";
    expect(last).toMatch(/not on this machine/);
  });

  it("says what is wrong with a command line, and exits with 2", async () => {
    const { env } = home();
    for (const args of [["dance"], ["ask", "--nope"], ["tokens"], []]) {
      const { code, out, err } = await runCli(current, args, env);
      expect(code, args.join(" ")).toBe(2);
      expect(out + err).not.toBe("");
    }
  });

  it("says that a repository is not there, or has nothing to read", async () => {
    const { env, connect } = home();
    await connect();
    const missing = await runCli(current, ["index", "--repo", "/nowhere/at/all"], env);
    expect(missing).toMatchObject({
      code: 1,
      err: expect.stringContaining("There is no folder /nowhere/at/all") as string,
    });
    const empty = await runCli(current, ["index", "--repo", temporaryFolder()], env);
    expect(empty).toMatchObject({ code: 1, err: expect.stringContaining("nothing to read") as string });
  });

  it("lists the known models as JSON", async () => {
    const { env, connect } = home();
    await connect();
    const { code, out } = await runCli(current, ["models", "--json"], env);
    expect(code).toBe(0);
    expect((JSON.parse(out) as unknown[]).length).toBeGreaterThan(1);
  });
});
