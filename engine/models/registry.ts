/**
 * Which models exist, which are on disk, which fit this machine.
 */

import type { ModelEntry } from "../protocol";

export interface ResolvedModel {
  readonly id: string;
  readonly name: string;
  /** GGUF file or folder with safetensors. */
  readonly path: string;
  /** S for this model, from the manifest; 8,192 at most, and a quarter of the positions for a model we do not know. */
  readonly segmentTokensMax: number;
}

export declare class ModelRegistry {
  static open(modelsFolder: string, machineBytes: number): Promise<ModelRegistry>;
  /** Known models, the fitting first, then by size, largest first. `recommended` marks one. */
  entries(): Promise<readonly ModelEntry[]>;
  /**
   * `wanted`: a known id, an absolute path, or "" for the recommended model, or, when that is not on disk, any that is. Rejects with EngineError
   * `modelMissing` (says how to get it) or `modelBroken` (wrong size).
   */
  resolve(wanted: string): Promise<ResolvedModel>;
  /** The id `wanted` stands for, on disk or not; "" is the recommended one. Undefined for a path. */
  knownId(wanted: string): string | undefined;
}
