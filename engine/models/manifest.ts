/**
 * The models Nosa knows how to fetch: manifest.json, typed.
 *
 * A file out of packages is pinned by its SHA-256. The hub's file of the same model may be another one (it was quantised by others), so there the
 * hub's own word for the revision counts: size and SHA-256 as its interface reports them.
 */

import { models } from "./manifest.json";

export interface KnownModel {
  readonly id: string;
  readonly name: string;
  readonly licence: string;
  /** Name of the file in the models folder. */
  readonly file: string;
  /** About what the file takes on disk. */
  readonly bytes: number;
  /** `general.architecture` of the file. */
  readonly architecture: string;
  /** Words that `general.name` of the file holds, in lower case. */
  readonly nameWords: readonly string[];
  /** Positions it was trained for. */
  readonly positions: number;
  /** S: tokens of a segment. With the header and a tail of the same length it stays inside the positions. */
  readonly segmentTokensMax: number;
  readonly recommended: boolean;
  readonly hub: HubFile;
  readonly packages: PackagedFile;
}

export interface HubFile {
  readonly repository: string;
  readonly revision: string;
  readonly file: string;
}

/** A file cut into parts, each in a Python wheel of its own. */
export interface PackagedFile {
  readonly bytes: number;
  readonly sha256: string;
  readonly parts: readonly PackagePart[];
}

export interface PackagePart {
  readonly package: string;
  readonly version: string;
  /** Path inside the wheel. */
  readonly member: string;
  readonly bytes: number;
  readonly sha256: string;
}

export const knownModels: readonly KnownModel[] = models;
