/**
 * The one place that says how every context begins.
 */

import type { Pieces, PromptFormat } from "./format";

/** Opens the system turn, states the one fixed line and the repository's name. `repository` "" gives a header without repository. */
export declare function headerPieces(format: PromptFormat, repository: string): Pieces;
