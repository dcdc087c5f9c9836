/**
 * What a busy machine does to everybody, measured beside what is tested, so that a goal in milliseconds can be held to
 * the code and not to its neighbours.
 */

import { once } from "node:events";
import * as net from "node:net";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { Worker } from "node:worker_threads";

/**
 * Watches the event loop until the result is called: the longest delay of this thread in milliseconds, and that of a
 * thread which has nothing to do.
 */
export async function watchDelays(): Promise<() => Promise<{ readonly here: number; readonly elsewhere: number }>> {
  const worker = new Worker(idleThread, { eval: true });
  await once(worker, "message");
  const delay = monitorEventLoopDelay({ resolution: 5 });
  delay.enable();
  return async () => {
    delay.disable();
    worker.postMessage("stop");
    const [elsewhere] = (await once(worker, "message")) as [number];
    await worker.terminate();
    return { here: delay.max / 1e6, elsewhere };
  };
}

const idleThread = `
  const { parentPort } = require("node:worker_threads");
  const delay = require("node:perf_hooks").monitorEventLoopDelay({ resolution: 5 });
  delay.enable();
  parentPort.once("message", () => parentPort.postMessage(delay.max / 1e6));
  parentPort.postMessage("ready");
`;

/**
 * Milliseconds of `rounds` requests, one after the other, and of as many bytes sent between them to a thread that
 * echoes: each the 95th percentile.
 */
export async function roundTrips(
  rounds: number,
  request: () => Promise<unknown>,
): Promise<{ readonly request: number; readonly echo: number }> {
  const worker = new Worker(echoThread, { eval: true });
  const [port] = (await once(worker, "message")) as [number];
  const socket = net.connect(port, "127.0.0.1");
  await once(socket, "connect");
  socket.setNoDelay(true);
  const [requests, echoes]: [number[], number[]] = [[], []];
  for (let round = 0; round < rounds; round++) {
    let at = performance.now();
    await request();
    requests.push(performance.now() - at);
    at = performance.now();
    socket.write("x");
    await once(socket, "data");
    echoes.push(performance.now() - at);
  }
  socket.destroy();
  await worker.terminate();
  return { request: percentile95(requests), echo: percentile95(echoes) };
}

const echoThread = `
  const server = require("node:net").createServer((socket) => { socket.setNoDelay(true); socket.pipe(socket); socket.on("error", () => undefined); });
  server.listen(0, "127.0.0.1", () => require("node:worker_threads").parentPort.postMessage(server.address().port));
`;

function percentile95(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length * 0.95)] ?? 0;
}
