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
  /** What the question is about: labels of files, folders and selections. */
  readonly attachments: readonly string[];
  readonly references: readonly ViewReference[];
  /** What it took, in words; "" for none. */
  readonly footnote: string;
  readonly state: "streaming" | "done" | "stopped" | "failed";
}

/** Something that goes along with the next question. */
export interface ViewAttachment {
  readonly id: string;
  readonly label: string;
}

/** Extension → view. */
export type ToView =
  | {
      readonly kind: "state";
      readonly turns: readonly ViewTurn[];
      readonly banner: ViewBanner;
      readonly attachments: readonly ViewAttachment[];
      readonly busy: boolean;
    }
  | { readonly kind: "delta"; readonly turnId: string; readonly text: string }
  | { readonly kind: "stage"; readonly turnId: string; readonly text: string }
  | { readonly kind: "turn"; readonly turn: ViewTurn; readonly busy: boolean }
  | { readonly kind: "banner"; readonly banner: ViewBanner }
  | { readonly kind: "attachments"; readonly attachments: readonly ViewAttachment[] }
  /** Puts a text where the question is written, and the cursor behind it. */
  | { readonly kind: "draft"; readonly text: string };

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
  /** Code of an answer, to be put into a file after a look at the difference. */
  | { readonly kind: "apply"; readonly turnId: string; readonly text: string }
  /** Lets the user choose a file or folder to go along with the question. */
  | { readonly kind: "attach" }
  | { readonly kind: "detach"; readonly attachmentId: string }
  /** Asks a question again, in another way: a new conversation with everything before it. */
  | { readonly kind: "fork"; readonly turnId: string }
  | { readonly kind: "action"; readonly command: string };

/** The page's own words, in the editor's language. They come with the page. */
export interface ViewWords {
  readonly language: string;
  readonly placeholder: string;
  readonly inputLabel: string;
  readonly ask: string;
  readonly stop: string;
  readonly you: string;
  readonly yourQuestion: string;
  readonly answer: string;
  readonly answering: string;
  readonly thinking: string;
  readonly copy: string;
  readonly copied: string;
  readonly insert: string;
  readonly apply: string;
  readonly askAgain: string;
  readonly drewOn: string;
  readonly drewOnLabel: string;
  /** {0}: file and lines, {1}: per cent. */
  readonly openReference: string;
  readonly attach: string;
  /** {0}: label. */
  readonly detach: string;
  readonly attachments: string;
  readonly commands: string;
  readonly welcomeTitle: string;
  readonly welcomeText: string;
  readonly hint: string;
  readonly examples: readonly string[];
  /** Name and what it does. */
  readonly slash: readonly (readonly [name: string, description: string])[];
}
