/**
 * Real models for tests: from where the product keeps them, fetched as the product fetches them.
 */

import * as path from "node:path";
import { downloadModel } from "../../engine/models/download";
import { knownModels } from "../../engine/models/manifest";
import { dataFolder, dataPaths } from "../../engine/paths";

/** Path of a known model. The first test that asks on a fresh machine waits for the download. */
export function modelFile(id: string): Promise<string> {
  return downloadModel({
    model: id,
    modelsFolder: modelsFolder(),
    hubMirror: process.env["NOSA_HUB_MIRROR"] ?? "",
    onProgress: () => undefined,
    onNotice: (sentence) => console.log(sentence),
    signal: new AbortController().signal,
  });
}

/** Where a known model lies once it is fetched. */
export function modelPath(id: string): string {
  return path.join(modelsFolder(), knownModels.find((model) => model.id === id)?.file ?? id);
}

function modelsFolder(): string {
  return process.env["NOSA_MODELS_HOME"] ?? dataPaths(dataFolder(process.env)).models;
}
