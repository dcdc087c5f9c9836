/**
 * Which models exist, which are on disk, which fit this machine.
 */

import { readFile, stat } from "node:fs/promises";
import * as path from "node:path";
import * as z from "zod/mini";
import { codeOf, EngineError } from "../errors";
import type { ModelEntry } from "../protocol";
import { filesOf, isVerified, megabytes, modelPath, partialsOf, readNote, remove, sha256Of, sizeOf } from "./files";
import { readGgufIdentity } from "./ggufIdentity";
import { knownModels, type KnownModel } from "./manifest";

export interface ResolvedModel {
  readonly id: string;
  readonly name: string;
  /** GGUF file or folder with safetensors. */
  readonly path: string;
  /** S: tokens of a segment. A quarter of its positions for a model that is not in the manifest, 8,192 at most. */
  readonly segmentTokensMax: number;
  /** Of the file, hex; "" for one that nobody has hashed and that no adapter could be for. */
  readonly sha256: string;
}

/** What a model takes beside its weights: KV, activations, the engine and the editor. */
const besideBytes = 1.5e9;
/** Weights are mapped and unpacked in part. */
const weightFactor = 1.25;

const segmentTokensDefault = 8_192;
const segmentTokensLeast = 256;
const blockTokens = 64;

export class ModelRegistry {
  readonly #folder: string;
  readonly #machineBytes: number;
  readonly #models: readonly KnownModel[];

  private constructor(folder: string, machineBytes: number, models: readonly KnownModel[]) {
    this.#folder = folder;
    this.#machineBytes = machineBytes;
    this.#models = models;
  }

  static async open(modelsFolder: string, machineBytes: number, models = knownModels): Promise<ModelRegistry> {
    return Promise.resolve(new ModelRegistry(modelsFolder, machineBytes, models));
  }

  /** Known models, the fitting first, then by size, largest first. `recommended` marks one. */
  async entries(): Promise<readonly ModelEntry[]> {
    const recommended = this.#recommended();
    const entries = await Promise.all(
      this.#models.map(async (model) => ({
        id: model.id,
        name: model.name,
        licence: model.licence,
        bytes: model.bytes,
        bytesArrived: await this.#bytesArrived(model),
        onDisk: (await this.#state(model)) === "whole",
        fitsMachine: this.#fits(model),
        recommended: model === recommended,
      })),
    );
    return entries.sort((a, b) => Number(b.fitsMachine) - Number(a.fitsMachine) || b.bytes - a.bytes);
  }

  /**
   * `wanted`: a known id, an absolute path, or "" for the recommended model, or, when that is not on disk, the largest that is and fits. Rejects with
   * EngineError `modelMissing` (says how to get it), `modelBroken` (cut short), or `badRequest` for a name that is neither.
   */
  async resolve(wanted: string): Promise<ResolvedModel> {
    if (path.isAbsolute(wanted)) return resolvePath(wanted);
    const model = wanted === "" ? await this.#best() : this.#models.find(({ id }) => id === wanted);
    if (model === undefined) {
      throw new EngineError(
        "badRequest",
        `Nosa knows no model "${wanted}": choose one of the list, or give the full path of a model.`,
      );
    }
    const state = await this.#state(model);
    if (state === "missing") {
      throw new EngineError(
        "modelMissing",
        `The model ${model.name} (${megabytes(model.bytes)}) is not on this machine yet: download it, or choose another one.`,
      );
    }
    if (state === "broken") {
      throw new EngineError("modelBroken", `The file of ${model.name} is damaged or incomplete: download it again.`);
    }
    const { id, name, segmentTokensMax } = model;
    const file = modelPath(this.#folder, model);
    return { id, name, path: file, segmentTokensMax, sha256: (await readNote(file))?.sha256 ?? "" };
  }

  /** The id `wanted` stands for, on disk or not; "" is the recommended one. Undefined for a path and for a name that is not known. */
  knownId(wanted: string): string | undefined {
    return wanted === "" ? this.#recommended()?.id : this.#models.find(({ id }) => id === wanted)?.id;
  }

  /** Deletes a known model, or the part of it that was fetched; resolves with the bytes that were freed. */
  async delete(id: string): Promise<number> {
    const model = this.#models.find((candidate) => candidate.id === id);
    if (model === undefined) {
      throw new EngineError("badRequest", `Nosa has no model "${id}" of its own: files of yours are yours to delete.`);
    }
    const files = filesOf(modelPath(this.#folder, model));
    const bytes = await Promise.all(files.map((file) => sizeOf(file)));
    for (const file of files) await remove(file);
    return bytes.reduce((sum, each) => sum + each, 0);
  }

  /** Of a download that was stopped. */
  async #bytesArrived(model: KnownModel): Promise<number> {
    if ((await this.#state(model)) === "whole") return 0;
    const { hub, packages } = partialsOf(modelPath(this.#folder, model));
    return Math.max(await sizeOf(hub), await sizeOf(packages));
  }

  #fits(model: KnownModel): boolean {
    return model.bytes * weightFactor + besideBytes <= this.#machineBytes;
  }

  /** The manifest's own where it fits, else the largest that does, else the smallest. */
  #recommended(): KnownModel | undefined {
    const bySize = this.#models.toSorted((a, b) => b.bytes - a.bytes);
    const fitting = bySize.filter((model) => this.#fits(model));
    return fitting.find(({ recommended }) => recommended) ?? fitting[0] ?? bySize.at(-1);
  }

  async #best(): Promise<KnownModel | undefined> {
    const recommended = this.#recommended();
    if (recommended === undefined || (await this.#state(recommended)) !== "missing") return recommended;
    for (const { id } of await this.entries()) {
      const model = this.#models.find((candidate) => candidate.id === id);
      if (model !== undefined && this.#fits(model) && (await this.#state(model)) === "whole") return model;
    }
    return recommended;
  }

  /** By size alone: the SHA-256 was checked when the file came, and is again when it is fetched again. */
  async #state(model: KnownModel): Promise<"missing" | "whole" | "broken"> {
    const file = modelPath(this.#folder, model);
    const bytes = await sizeOf(file);
    if (bytes === 0) return "missing";
    const expected = (await readNote(file))?.bytes ?? model.packages.bytes;
    return bytes === expected ? "whole" : "broken";
  }
}

const configSchema = z.looseObject({ max_position_embeddings: z.optional(z.number()) });

/** A model of the user's own. */
async function resolvePath(wanted: string): Promise<ResolvedModel> {
  const folder = await isFolder(wanted);
  const positions = folder ? await folderPositions(wanted) : await filePositions(wanted);
  return {
    id: wanted,
    name: path.basename(wanted),
    path: wanted,
    segmentTokensMax: segmentTokensFor(positions),
    sha256: folder ? "" : await knownSha256(wanted),
  };
}

/** A file of the user's own is hashed only when, by its size, it could be a known one: half a second for half a gigabyte. */
async function knownSha256(file: string): Promise<string> {
  const note = await readNote(file);
  if (note !== undefined && (await isVerified(file))) return note.sha256;
  const bytes = await sizeOf(file);
  if (!knownModels.some(({ packages }) => packages.bytes === bytes)) return "";
  return sha256Of(file, new AbortController().signal);
}

async function isFolder(wanted: string): Promise<boolean> {
  try {
    return (await stat(wanted)).isDirectory();
  } catch (error) {
    if (codeOf(error) === "ENOENT" || codeOf(error) === "ENOTDIR") {
      throw new EngineError("modelMissing", `There is no model at ${wanted}: check the path in the settings.`);
    }
    throw new EngineError("modelBroken", `The model at ${wanted} cannot be read: check that you may read it.`, {
      cause: error,
    });
  }
}

async function folderPositions(folder: string): Promise<number> {
  try {
    const config = configSchema.safeParse(JSON.parse(await readFile(path.join(folder, "config.json"), "utf8")));
    return config.success ? (config.data.max_position_embeddings ?? 0) : 0;
  } catch (error) {
    throw new EngineError(
      "modelBroken",
      `The folder ${folder} holds no model (config.json cannot be read): choose another one.`,
      { cause: error },
    );
  }
}

async function filePositions(file: string): Promise<number> {
  const identity = await readGgufIdentity(file);
  if (identity !== undefined) return identity.contextLength;
  throw new EngineError("modelBroken", `The file ${file} is no GGUF model: choose another one.`);
}

function segmentTokensFor(positions: number): number {
  const quarter = Math.floor(positions / 4 / blockTokens) * blockTokens;
  return Math.min(segmentTokensDefault, Math.max(segmentTokensLeast, quarter || segmentTokensDefault));
}
