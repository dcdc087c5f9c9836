/** Downloads that run: one for each model, whoever asks for it. */

import { EngineError } from "../errors";
import type { downloadModel } from "./download";
import type { ModelRegistry } from "./registry";
import type { DownloadProgress, ModelEntry } from "../protocol";
import { SharedWork } from "../util/sharedWork";

export interface DownloadsOptions {
  readonly registry: Pick<ModelRegistry, "entries" | "knownId">;
  readonly download: typeof downloadModel;
  readonly modelsFolder: string;
  readonly onNotice: (sentence: string) => void;
  readonly onChange: () => void;
}

export interface DownloadRequest {
  /** A known id, or "" for the recommended one. */
  readonly model: string;
  readonly hubMirror: string;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: DownloadProgress) => void;
}

interface Running {
  readonly work: SharedWork<ModelEntry, DownloadProgress>;
  progress: DownloadProgress | undefined;
}

export class Downloads {
  readonly #options: DownloadsOptions;
  readonly #running = new Map<string, Running>();

  constructor(options: DownloadsOptions) {
    this.#options = options;
  }

  /** Percent of the first running download; undefined when none runs. */
  get percent(): number | undefined {
    for (const { progress } of this.#running.values()) {
      const { bytesDone = 0, bytesTotal = 0 } = progress ?? {};
      return bytesTotal > 0 ? Math.floor((100 * bytesDone) / bytesTotal) : 0;
    }
    return undefined;
  }

  /** Rejects with Cancelled when `signal` is aborted; what has arrived is kept. */
  async fetch(request: DownloadRequest): Promise<ModelEntry> {
    const id = this.#options.registry.knownId(request.model);
    if (id === undefined) {
      throw new EngineError(
        "badRequest",
        `${request.model} is not a model that Nosa can fetch: choose one of the list.`,
      );
    }
    const known = this.#running.get(id);
    if (known?.work.stopped === true) await known.work.settled;
    const running = this.#running.get(id) ?? this.#start(id, request.hubMirror);
    return running.work.join(request.signal, request.onProgress);
  }

  /** Whether the model is being fetched. */
  isRunning(id: string): boolean {
    return this.#running.has(id);
  }

  async dispose(): Promise<void> {
    const running = [...this.#running.values()];
    for (const { work } of running) work.stop();
    await Promise.all(running.map(({ work }) => work.settled));
  }

  #start(id: string, hubMirror: string): Running {
    const { download, modelsFolder, onNotice, onChange } = this.#options;
    const work = new SharedWork<ModelEntry, DownloadProgress>(async (signal) => {
      try {
        await download({
          model: id,
          modelsFolder,
          hubMirror,
          signal,
          onNotice,
          onProgress: (progress) => {
            running.progress = progress;
            work.tell(progress);
            onChange();
          },
        });
      } finally {
        this.#running.delete(id);
        onChange();
      }
      return this.#entry(id);
    });
    const running: Running = { work, progress: undefined };
    this.#running.set(id, running);
    return running;
  }

  async #entry(id: string): Promise<ModelEntry> {
    const entry = (await this.#options.registry.entries()).find((candidate) => candidate.id === id);
    if (entry === undefined)
      throw new EngineError("internal", `The model ${id} was fetched and then was not to be found.`);
    return entry;
  }
}
