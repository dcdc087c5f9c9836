/**
 * SEAM 2: extension ⇄ webview (media/chat). Types only.
 *
 * The extension owns the conversation; the view draws what it is told and reports what the user did.
 */

export interface ViewReference {
  /** Shown to the user, such as "src/store.ts:12-40". */
  readonly label: string;
  /** Opaque to the view; sent back when the user opens it. */
  readonly id: string;
  /** 0 to 1. */
  readonly share: number;
}

export interface ViewTurn {
  readonly id: string;
  readonly role: "user" | "assistant";
  readonly markdown: string;
  readonly references: readonly ViewReference[];
  /** What it took, in words; "" for none. */
  readonly footnote: string;
  readonly state: "streaming" | "done" | "stopped" | "failed";
}

/** Extension → view. */
export type ToView =
  | { readonly kind: "state"; readonly turns: readonly ViewTurn[]; readonly banner: ViewBanner; readonly busy: boolean }
  | { readonly kind: "delta"; readonly turnId: string; readonly text: string }
  | { readonly kind: "stage"; readonly turnId: string; readonly text: string }
  | { readonly kind: "turn"; readonly turn: ViewTurn; readonly busy: boolean }
  | { readonly kind: "banner"; readonly banner: ViewBanner };

/** What the header of the view says: the repository, the model, and an action to offer when something is missing. */
export interface ViewBanner {
  readonly text: string;
  readonly action: { readonly label: string; readonly command: string } | null;
}

/** View → extension. */
export type FromView =
  | { readonly kind: "ready" }
  | { readonly kind: "ask"; readonly text: string }
  | { readonly kind: "stop" }
  | { readonly kind: "clear" }
  | { readonly kind: "open"; readonly referenceId: string }
  | { readonly kind: "copy"; readonly text: string }
  | { readonly kind: "insert"; readonly text: string }
  | { readonly kind: "action"; readonly command: string };
