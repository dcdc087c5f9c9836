/** Models of a few hundred kilobytes with random weights, and the addon to run them with. */

import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import * as path from "node:path";
import type { DecodeOptions, NativeAddon, OpenModelOptions } from "../../engine/native/addon";
import { loadAddon } from "../../engine/native/load";

export const addonFile = path.resolve("dist/nosa.node");
export const tinyVocabulary = 320;

export function addon(): NativeAddon {
  return loadAddon(addonFile);
}

/** A fresh folder with all tiny models; give it back with `remove`. */
export function tinyModels(): { readonly folder: string; remove(): void } {
  const folder = mkdtempSync(path.join(tmpdir(), "nosa-tiny-"));
  execFileSync(process.execPath, ["scripts/make-tiny-model.mjs", folder], { stdio: "ignore" });
  return { folder, remove: () => rmSync(folder, { recursive: true, force: true }) };
}

export function openOptions(file: string, more: Partial<OpenModelOptions> = {}): OpenModelOptions {
  return { path: file, threads: 2, precision: "fast", kernels: "auto", ...more };
}

/** Greedy, with no id that ends it. */
export function greedy(steps: number, more: Partial<DecodeOptions> = {}): DecodeOptions {
  const sampling = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };
  return { steps, sampling, stopIds: [], ...more };
}

/** `count` ids that differ from call to call of `from`. */
export function ids(count: number, from = 0): Uint32Array {
  return Uint32Array.from({ length: count }, (_, i) => (i * 37 + from * 101 + 11) % tinyVocabulary);
}

/** The `code` of what a promise rejects with. */
export async function codeOf(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error instanceof Error && "code" in error ? error.code : error;
  }
  return "resolved";
}
