/** Loads a model for real: the native addon and the tokenizer's thread. */

import * as path from "node:path";
import type { ContextStore } from "../contexts/store";
import type { Log } from "../log";
import type { ResolvedModel } from "../models/registry";
import { physicalCores } from "../machine";
import { loadAddon } from "../native/load";
import { Tokenizer } from "../tokenizer/tokenizer";
import { modelText } from "./modelText";
import { Session } from "./session";

export interface OpenSessionOptions {
  /** Where the bundles and the addon are. */
  readonly distFolder: string;
  readonly resolved: ResolvedModel;
  readonly threads: number;
  readonly store: ContextStore;
  readonly log: Log;
}

export async function openSession(options: OpenSessionOptions): Promise<Session> {
  const { distFolder, resolved, threads, store, log } = options;
  const addonPath = path.join(distFolder, "nosa.node");
  const workerPath = path.join(distFolder, "tokenizerWorker.js");
  const addon = loadAddon(addonPath);
  const [model, text] = await Promise.allSettled([
    addon.openModel({
      path: resolved.path,
      threads: threads === 0 ? physicalCores() : threads,
      precision: "fast",
      kernels: "auto",
    }),
    Tokenizer.open(resolved.path, { addonPath, workerPath }).then(modelText),
  ]);
  if (model.status === "fulfilled" && text.status === "fulfilled") {
    return new Session({ resolved, model: model.value, text: text.value, store, log });
  }
  // What did open must not stay when the other did not.
  if (model.status === "fulfilled") await model.value.dispose();
  if (text.status === "fulfilled") await text.value.dispose();
  throw model.status === "rejected"
    ? model.reason
    : text.status === "rejected"
      ? text.reason
      : new Error("unreachable");
}
