/** SEAM 2, second page: extension ⇄ webview (media/contextMap). Types only. */

export interface MapFile {
  /** Relative to the root. */
  readonly path: string;
  readonly tokens: number;
  /** Of the attention that the last answer gave to the repository, 0 to 1. */
  readonly share: number;
  /** Where most of it went, from 1; 0 for none. */
  readonly startLine: number;
  readonly endLine: number;
  readonly isPinned: boolean;
}

export interface MapGauge {
  readonly id: string;
  readonly label: string;
  readonly text: string;
  /** 0 to 100. */
  readonly percent: number;
}

/** Extension → page. */
export type ToMap =
  | {
      readonly kind: "map";
      /** Of the repository. */
      readonly name: string;
      readonly files: readonly MapFile[];
      /** What the last answer was about; "" before the first. */
      readonly question: string;
    }
  | { readonly kind: "gauges"; readonly gauges: readonly MapGauge[] };

/** Page → extension. */
export type FromMap =
  { readonly kind: "ready" } | { readonly kind: "open"; readonly path: string; readonly line: number };

/** The page's own words, in the editor's language. */
export interface MapWords {
  readonly language: string;
  readonly empty: string;
  /** {0}: question. */
  readonly litBy: string;
  readonly notLit: string;
  readonly map: string;
  readonly help: string;
  /** {0}: count. */
  readonly tokens: string;
  /** {0}: per cent. */
  readonly attention: string;
  /** {0}: first, {1}: last line. */
  readonly lines: string;
  readonly pinned: string;
}
