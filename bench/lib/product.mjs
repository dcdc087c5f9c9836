// The product's own code, and a client of its engine, for benchmarks.
import { build } from "esbuild";
import { mkdtempSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const here = path.dirname(fileURLToPath(import.meta.url));
const dist = path.join(here, "../../dist");

async function load() {
  const outfile = path.join(mkdtempSync(path.join(os.tmpdir(), "nosa-bench-")), "product.cjs");
  await build({
    entryPoints: [path.join(here, "product.ts")],
    outfile,
    bundle: true,
    platform: "node",
    target: "node20",
    format: "cjs",
    logLevel: "error",
  });
  return createRequire(import.meta.url)(outfile);
}

/** Everything that product.ts names. */
export const product = await load();

/** Path of a known model, fetched when it is not there. */
export function modelFile(id) {
  return product.downloadModel({
    model: id,
    modelsFolder: modelsFolder(),
    hubMirror: process.env.NOSA_HUB_MIRROR ?? "",
    onProgress: () => undefined,
    onNotice: (sentence) => console.error(sentence),
    signal: new AbortController().signal,
  });
}

/** Where the user's models are. */
export function modelsFolder() {
  return process.env.NOSA_MODELS_HOME ?? product.dataPaths(product.dataFolder(process.env)).models;
}

const settings = {
  model: "",
  threads: 0,
  exclude: [],
  fileKilobytesMax: 512,
  contextTokensMax: 262144,
  completions: { enabled: true, languages: { "*": true }, tokensMax: 96 },
  hubMirror: "",
};

/**
 * A fresh engine with the models of the user's; its data folder is `home`, or an empty one of its own. `changes` are settings.
 */
export async function startEngine({
  model,
  threads,
  home = mkdtempSync(path.join(os.tmpdir(), "nosa-bench-home-")),
  changes = {},
}) {
  const env = { ...process.env, NOSA_HOME: home, NOSA_MODELS_HOME: modelsFolder(), NOSA_IDLE_EXIT_MS: "1000" };
  const { socket, token, pid } = await product.connectToEngine({
    engineFile: path.join(dist, "engine.js"),
    runtime: process.execPath,
    log: () => undefined,
    signal: new AbortController().signal,
    env,
  });
  const connection = product.createMessageConnection(
    new product.SocketMessageReader(socket),
    new product.SocketMessageWriter(socket),
  );
  connection.listen();
  await connection.sendRequest("initialize", {
    processId: process.pid,
    rootUri: null,
    capabilities: {},
    initializationOptions: {
      protocolVersion: product.protocolVersion,
      token,
      client: "test",
      settings: { ...settings, model, threads, ...changes },
    },
  });
  await connection.sendNotification("initialized", {});
  return {
    pid,
    // An undefined token would count as a second parameter.
    request: (method, params, ...token) => connection.sendRequest(method, params, ...token),
    notify: (method, params) => connection.sendNotification(method, params),
    onNotification: (method, handler) => connection.onNotification(method, handler),
    onProgress: (token, handler) =>
      connection.onNotification("$/progress", (params) => params.token === token && handler(params.value)),
    cancellation: () => new product.CancellationTokenSource(),
    /** Ends this connection alone: the engine serves others as well. */
    leave() {
      connection.dispose();
      socket.destroy();
    },
    /** Ends with the process gone, so that another may take the data folder. */
    async stop() {
      await connection.sendRequest("nosa/drain", {}).catch(() => undefined);
      connection.dispose();
      socket.destroy();
      while (isAlive(pid)) await new Promise((resolve) => setTimeout(resolve, 5));
    },
  };
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
