/** Process entry of the engine: take the lock, listen, serve, and leave when nobody needs it any more. */

import * as fs from "node:fs";
import type { Socket } from "node:net";
import * as os from "node:os";
import { processConfig } from "./config";
import { Engine } from "./engine";
import { EngineLock } from "./lock";
import { FileLog } from "./log";
import { downloadModel } from "./models/download";
import { ModelRegistry } from "./models/registry";
import { Server } from "./server";
import { openSession } from "./sessions/openSession";
import { engineVersion } from "./version";

/** What runs when the engine is asked to leave may take this long to finish. */
const drainMsMax = 8_000;

/** After the last word the sockets get a moment to carry it. */
const partingMs = 100;

async function main(): Promise<void> {
  const { paths, idleExitMs } = processConfig(process.env);
  fs.mkdirSync(paths.folder, { recursive: true, mode: 0o700 });
  const log = FileLog.open(paths.logs);
  const failed = (error: unknown): void => {
    log.error("The engine stops because of a fault", error);
    // The editor lives on, and its client starts the engine again.
    process.exit(1);
  };
  process.on("uncaughtException", failed);
  process.on("unhandledRejection", failed);

  const early: Socket[] = [];
  let accept: (socket: Socket) => void = (socket) => early.push(socket);
  const lock = await EngineLock.take(paths, engineVersion, (socket) => accept(socket));
  if (lock === undefined) {
    log.info("Another engine is there already");
    return;
  }
  log.info(`Engine ${engineVersion} listens at ${paths.socket} on Node ${process.versions.node}`);

  let leaving: Promise<void> | undefined;
  const leave = (reason: string): Promise<void> => {
    leaving ??= (async () => {
      log.info(`Leaving: ${reason}`);
      await lock.release();
      const closed = engine.then(async (built) => {
        await built.finish();
        await built.dispose();
      });
      await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, drainMsMax))]);
      setTimeout(() => {
        server.dispose();
        process.exit(0);
      }, partingMs);
    })();
    return leaving;
  };

  const engine: Promise<Engine> = ModelRegistry.open(paths.models, os.totalmem()).then((registry) =>
    Engine.create({
      paths,
      log,
      registry,
      version: engineVersion,
      download: downloadModel,
      openFiles: (): readonly string[] => server.openFiles(),
      openSession: (resolved, settings, store) =>
        openSession({ distFolder: __dirname, resolved, settings, store, log }),
    }),
  );
  const server: Server = new Server({
    token: lock.token,
    version: engineVersion,
    log,
    engine,
    idleExitMs,
    onAbandoned: () => void leave("nobody was connected for a while"),
    onDrain: () => leave("asked to"),
  });
  accept = (socket) => server.accept(socket);
  for (const socket of early) server.accept(socket);
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.on(signal, () => void leave(signal));
  await engine;
}

main().catch((error: unknown) => {
  process.stderr.write(
    `Nosa's engine could not start: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`,
  );
  process.exit(1);
});
