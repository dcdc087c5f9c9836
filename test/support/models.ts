/**
 * Real models for tests: from where the product keeps them, fetched as the product fetches them.
 */

import { downloadModel } from "../../engine/models/download";
import { dataFolder, dataPaths } from "../../engine/paths";

/** Path of a known model. The first test that asks on a fresh machine waits for the download. */
export function modelFile(id: string): Promise<string> {
  const modelsFolder = process.env["NOSA_MODELS_HOME"] ?? dataPaths(dataFolder(process.env)).models;
  return downloadModel({
    model: id,
    modelsFolder,
    hubMirror: process.env["NOSA_HUB_MIRROR"] ?? "",
    onProgress: () => undefined,
    onNotice: (sentence) => console.log(sentence),
    signal: new AbortController().signal,
  });
}
