/**
 * Entry of the tokenizer's thread: opens one vocabulary, then encodes. Short jobs go before long ones, so that typing never waits for indexing.
 */

import { stat } from "node:fs/promises";
import { createRequire } from "node:module";
import { parentPort, workerData, type MessagePort } from "node:worker_threads";
import { codeOf, EngineError, toEngineError } from "../errors";
import type { NativeAddon } from "../native/addon";
import type { Encoder } from "./encoder";
import { ggufEncoder } from "./ggufEncoder";
import { vocabularyLines } from "./lines";
import { tokenizerJsonEncoder } from "./tokenizerJson";
import { vocabularyOfGguf } from "./vocabulary";
import type { EncodeInput, FromWorker, TokenizerFacts, ToWorker, WorkerStart } from "./workerMessages";

interface Job {
  readonly id: number;
  readonly characters: number;
  readonly steps: Generator<undefined, Uint32Array[]>;
}

async function openEncoder({ modelPath, addonPath }: WorkerStart): Promise<Encoder> {
  let isFolder: boolean;
  try {
    isFolder = (await stat(modelPath)).isDirectory();
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw error;
    throw new EngineError("modelMissing", `There is no model at ${modelPath}: fetch it, or choose another one.`);
  }
  if (isFolder) return tokenizerJsonEncoder(modelPath);
  const addon = createRequire(addonPath)(addonPath) as Pick<NativeAddon, "ggufMetadata">;
  return ggufEncoder(vocabularyOfGguf(addon.ggufMetadata(modelPath)));
}

function factsOf(encoder: Encoder): TokenizerFacts {
  const { tokenBytes, special, controlIds } = encoder.tables();
  return {
    tokenBytes,
    lines: vocabularyLines(tokenBytes.bytes, tokenBytes.offsets),
    special: [...special],
    controlIds,
    eosIds: encoder.vocabulary.eosIds,
    bosId: encoder.addBos ? encoder.vocabulary.bosId : undefined,
    chatTemplate: encoder.vocabulary.chatTemplate,
  };
}

function* encodeAll(encoder: Encoder, inputs: readonly EncodeInput[]): Generator<undefined, Uint32Array[]> {
  const ids: Uint32Array[] = [];
  for (const { text, special } of inputs) ids.push(yield* encoder.encode(text, special));
  return ids;
}

/** Work of at least this time is done before the messages that came in meanwhile are looked at. */
const turnMs = 5;

function serve(encoder: Encoder, port: MessagePort): void {
  const jobs: Job[] = [];
  let turning = false;

  const turn = (): void => {
    const job = jobs.reduce<Job | undefined>(
      (best, each) => (best === undefined || each.characters < best.characters ? each : best),
      undefined,
    );
    if (job === undefined) {
      turning = false;
      return;
    }
    const until = performance.now() + turnMs;
    do {
      const step = job.steps.next();
      if (step.done === true) {
        jobs.splice(jobs.indexOf(job), 1);
        send(
          port,
          { kind: "encoded", job: job.id, ids: step.value },
          step.value.map((ids) => ids.buffer as ArrayBuffer),
        );
        break;
      }
    } while (performance.now() < until);
    setImmediate(turn);
  };

  port.on("message", (message: ToWorker) => {
    const at = jobs.findIndex(({ id }) => id === message.job);
    if (message.kind === "cancel") {
      if (at >= 0) jobs.splice(at, 1);
      return;
    }
    const characters = message.inputs.reduce((sum, { text }) => sum + text.length, 0);
    jobs.push({ id: message.job, characters, steps: encodeAll(encoder, message.inputs) });
    if (turning) return;
    turning = true;
    setImmediate(turn);
  });
}

function send(port: MessagePort, message: FromWorker, transfer: readonly ArrayBuffer[]): void {
  port.postMessage(message, [...transfer]);
}

async function main(port: MessagePort): Promise<void> {
  try {
    const encoder = await openEncoder(workerData as WorkerStart);
    serve(encoder, port);
    const facts = factsOf(encoder);
    const { tokenBytes, lines } = facts;
    const buffers = [tokenBytes.bytes, tokenBytes.offsets, lines.newlines, lines.endsLine].map(
      ({ buffer }) => buffer as ArrayBuffer,
    );
    send(port, { kind: "ready", facts }, buffers);
  } catch (error) {
    const { kind, message } = toEngineError(error);
    send(port, { kind: "failed", error: kind, message }, []);
  }
}

if (parentPort !== null) void main(parentPort);
