/** Loads a model for real: the native addon, the adapter that came for the model, and the tokenizer's thread. */

import * as os from "node:os";
import * as path from "node:path";
import { describePlan, memoryBudget, memoryPlan, planNote, spillBytesOf } from "../contexts/budgets";
import type { ContextStore } from "../contexts/store";
import type { Log } from "../log";
import { physicalCores } from "../machine";
import { adapterFor } from "../models/adapters";
import type { ResolvedModel } from "../models/registry";
import { loadAddon } from "../native/load";
import type { EngineSettings } from "../protocol";
import { Tokenizer } from "../tokenizer/tokenizer";
import { cudaLibraryIn, findGpu } from "./gpu";
import { modelText } from "./modelText";
import { Session } from "./session";

export interface OpenSessionOptions {
  /** Where the bundles, the adapters and the addon are. */
  readonly distFolder: string;
  readonly resolved: ResolvedModel;
  readonly settings: Pick<EngineSettings, "threads" | "memoryGigabytes" | "diskGigabytes">;
  readonly store: ContextStore;
  readonly log: Log;
}

export async function openSession(options: OpenSessionOptions): Promise<Session> {
  const { distFolder, resolved, settings, store, log } = options;
  const addonPath = path.join(distFolder, "nosa.node");
  const workerPath = path.join(distFolder, "tokenizerWorker.js");
  const addon = loadAddon(addonPath);
  const cudaLibrary = cudaLibraryIn(distFolder);
  const gpu = await findGpu({ addonPath, libraryPath: cudaLibrary });
  const memoryBytes = memoryBudget(settings, { memoryBytes: os.totalmem() });
  const diskBytes = await store.limit(settings);
  const adapter = await adapterFor(path.join(distFolder, "adapters"), resolved.sha256);
  const [model, tokenizer] = await Promise.allSettled([
    addon.openModel({
      path: resolved.path,
      threads: settings.threads === 0 ? physicalCores() : settings.threads,
      precision: "fast",
      kernels: "auto",
      ...(gpu.usable ? { cudaLibrary } : {}),
      ...(adapter === undefined ? {} : { adapter, baseSha256: resolved.sha256 }),
      spillFolder: store.spillFolder,
      spillBytesMax: spillBytesOf(diskBytes),
    }),
    Tokenizer.open(resolved.path, { addonPath, workerPath }),
  ]);
  if (model.status === "fulfilled" && tokenizer.status === "fulfilled") {
    const text = modelText(tokenizer.value, model.value.info.completionOrder);
    const plan = memoryPlan(memoryBytes, diskBytes, model.value.info);
    await model.value.limitMemory({ kvBytesMax: plan.blockBytes });
    if (planNote(plan) !== "") log.info(planNote(plan));
    log.info(`${describePlan(plan)}; blocks are ranked ${rankingWords[model.value.info.selection]}`);
    const deviceNote = gpu.usable ? (model.value.info.gpuProblem ?? "") : gpu.reason;
    if (deviceNote !== "") log.info(`The CPU computes. ${deviceNote}`);
    return new Session({ resolved, model: model.value, text, plan, deviceNote, store, log });
  }
  // What did open must not stay when the other did not.
  if (model.status === "fulfilled") await model.value.dispose();
  if (tokenizer.status === "fulfilled") await tokenizer.value.dispose();
  throw model.status === "rejected"
    ? model.reason
    : tokenizer.status === "rejected"
      ? tokenizer.reason
      : new Error("unreachable");
}

const rankingWords = {
  native: "by the model's own eviction heads",
  adapter: "by an adapter",
  trainingFree: "by keys alone, with no training",
} as const;
