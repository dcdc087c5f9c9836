/**
 * The client's side of the socket, for the extension and for the terminal: find the engine or start it, and take over
 * from an older one. Beside protocol.ts the only file of the engine that the extension may import, so nothing heavy
 * comes with it.
 *
 * What comes back is a connected socket and the token to introduce oneself with; LSP's `initialize` is the caller's.
 */

import { spawn } from "node:child_process";
import * as fs from "node:fs";
import * as net from "node:net";
import * as path from "node:path";
import { createMessageConnection, SocketMessageWriter } from "vscode-jsonrpc/node";
import { readLock, type LockFile } from "./lockFile";
import { dataFolder, dataPaths, type DataPaths } from "./paths";
import { protocolVersion, type ClientHello, type ErrorKind } from "./protocol";
import { isAlive } from "./util/isAlive";
import { messagesOf } from "./util/messagesOf";
import { engineBuild, engineVersion, supersedes } from "./version";

export interface ConnectOptions {
  /** Absolute path of the engine's bundle (dist/engine.js). */
  readonly engineFile: string;
  /** The binary that runs it as Node: the caller's own. */
  readonly runtime: string;
  /** Told, in words, what happens on the way. */
  readonly log: (line: string) => void;
  /** Gives up when aborted. */
  readonly signal: AbortSignal;
  /** The caller's version; an engine that is older is asked to leave. This build's own unless told. */
  readonly version?: string;
  /** Likewise: an engine of the same version that was built before is asked to leave. */
  readonly build?: number;
  /** Where `NOSA_HOME` is looked up; passed on to an engine that is started. The process's own unless told. */
  readonly env?: NodeJS.ProcessEnv;
  /** How long finding or starting may take. */
  readonly timeoutMs?: number;
}

export interface EngineSocket {
  readonly socket: net.Socket;
  /** For ClientHello.token. */
  readonly token: string;
  readonly engineVersion: string;
  readonly pid: number;
}

/** One sentence for the user, and a kind as the engine's own errors have. */
export class ConnectError extends Error {
  readonly kind: ErrorKind;

  constructor(kind: ErrorKind, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "ConnectError";
    this.kind = kind;
  }
}

const timeoutMsDefault = 20_000;
const pollMsFirst = 10;
const pollMsMax = 200;
/** An engine whose pid lives but whose socket refuses this often is taken for dead: its pid belongs to somebody else. */
const refusalsMax = 5;
const drainMsMax = 10_000;

/** A connection to a running engine of a version that fits, started when there is none. */
export async function connectToEngine(options: ConnectOptions): Promise<EngineSocket> {
  const env = options.env ?? process.env;
  const mine = { version: options.version ?? engineVersion, build: options.build ?? engineBuild };
  const paths = dataPaths(dataFolder(env));
  const deadline = Date.now() + (options.timeoutMs ?? timeoutMsDefault);
  let starting: Promise<string | undefined> | undefined;
  let refusals = 0;
  let dead: string | undefined;
  for (let pollMs = pollMsFirst; Date.now() < deadline; pollMs = Math.min(pollMsMax, pollMs * 1.5)) {
    options.signal.throwIfAborted();
    const lock = await readLock(paths.lock);
    if (lock !== undefined && lock.token !== dead && isAlive(lock.pid)) {
      if (supersedes(mine, lock)) {
        options.log(`Asking the older engine of Nosa ${lock.version} to leave.`);
        await retire(lock, deadline);
        continue;
      }
      refuseOtherProtocol(lock);
      const socket = await open(lock.address);
      if (socket !== undefined) return { socket, token: lock.token, engineVersion: lock.version, pid: lock.pid };
      refusals += 1;
      // From now on its lock says nothing: the next engine listens at the same address before it has written its own.
      if (refusals === refusalsMax) dead = lock.token;
    } else if (starting === undefined) {
      options.log(`Starting the engine ${options.engineFile}.`);
      starting = start(options, env, paths);
      refusals = 0;
    }
    const failure = starting === undefined ? undefined : await Promise.race([starting, pause(pollMs)]);
    if (failure !== undefined) throw new ConnectError("internal", failure);
    if (starting === undefined) await pause(pollMs);
  }
  throw new ConnectError(
    "internal",
    `Nosa's engine did not answer in time: look at ${path.join(paths.logs, "engine.log")} and try again.`,
  );
}

function refuseOtherProtocol(lock: LockFile): void {
  if (lock.protocolVersion === protocolVersion) return;
  throw new ConnectError(
    "versionMismatch",
    `Another window runs Nosa ${lock.version}, which this one cannot talk to: reload every window so that all use the same version.`,
  );
}

function open(address: string): Promise<net.Socket | undefined> {
  return new Promise((resolve) => {
    const socket = net.connect(address);
    socket.once("connect", () => {
      socket.removeAllListeners("error");
      // A connection that breaks later is the reader's to notice; without a listener it would end the process.
      socket.on("error", () => undefined);
      resolve(socket);
    });
    socket.once("error", () => resolve(undefined));
  });
}

/** Starts an engine with the caller's own binary. Resolves with a sentence when it ends at once for a bad reason, else never. */
async function start(options: ConnectOptions, base: NodeJS.ProcessEnv, paths: DataPaths): Promise<string | undefined> {
  if (!fs.existsSync(options.engineFile)) {
    return `Nosa's engine is missing at ${options.engineFile}: install the extension again, or run "npm run build".`;
  }
  try {
    await fs.promises.mkdir(paths.logs, { recursive: true, mode: 0o700 });
  } catch (error) {
    return `Nosa cannot write to its data folder ${paths.folder} (${String(error)}): make it writable or set NOSA_HOME to another folder.`;
  }
  const output = path.join(paths.logs, "engine.out");
  const descriptor = fs.openSync(output, "w", 0o600);
  const env: NodeJS.ProcessEnv = { ...base, ELECTRON_RUN_AS_NODE: "1", ELECTRON_NO_ASAR: "1" };
  // A debugger's options are the caller's; two processes cannot listen on its port.
  delete env["NODE_OPTIONS"];
  const child = spawn(options.runtime, [options.engineFile], {
    cwd: paths.folder,
    detached: true,
    env,
    stdio: ["ignore", descriptor, descriptor],
    windowsHide: true,
  });
  fs.closeSync(descriptor);
  child.unref();
  return new Promise((resolve) => {
    child.once("error", (error) => resolve(`Nosa's engine could not be started: ${error.message}.`));
    child.once("exit", (code) => {
      // 0: another engine was there first, and the caller will find it.
      if (code !== 0) resolve(`Nosa's engine stopped while starting (code ${code ?? "none"}): look at ${output}.`);
    });
  });
}

/** Asks an older engine to finish and leave, and waits until it has. */
async function retire(lock: LockFile, deadline: number): Promise<void> {
  const until = Math.min(deadline, Date.now() + drainMsMax);
  const socket = await open(lock.address);
  if (socket !== undefined) await askToDrain(socket, lock, until);
  while (isAlive(lock.pid) && Date.now() < until) await pause(50);
  // One that does not listen and does not leave is stuck, or the pid is somebody else's: the new engine decides by the lock.
}

async function askToDrain(socket: net.Socket, lock: LockFile, until: number): Promise<void> {
  const connection = createMessageConnection(messagesOf(socket), new SocketMessageWriter(socket));
  connection.onError(() => undefined);
  connection.listen();
  // Spoken in the older engine's own protocol version: draining is the one request that every version understands.
  const hello: Omit<ClientHello, "settings"> & { settings: Record<string, never> } = {
    protocolVersion: lock.protocolVersion,
    token: lock.token,
    client: "terminal",
    settings: {},
  };
  const asked = (async () => {
    await connection.sendRequest("initialize", {
      processId: null,
      rootUri: null,
      capabilities: {},
      initializationOptions: hello,
    });
    await connection.sendRequest("nosa/drain", {});
  })();
  let timer: NodeJS.Timeout | undefined;
  const patience = new Promise((resolve) => (timer = setTimeout(resolve, Math.max(0, until - Date.now()))));
  await Promise.race([asked.catch(() => undefined), patience]);
  // A terminal program ends as soon as nothing is left to wait for.
  clearTimeout(timer);
  connection.dispose();
  socket.destroy();
}

function pause(ms: number): Promise<undefined> {
  return new Promise((resolve) => setTimeout(() => resolve(undefined), ms));
}
