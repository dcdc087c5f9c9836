/**
 * Which files of a folder go into its context, and why the others do not.
 */

import type { LeftOutReason } from "../protocol";

export interface ScanOptions {
  /** Globs of the user, relative to the root. */
  readonly exclude: readonly string[];
  /** The editor's `files.exclude` and `search.exclude`: glob → on. */
  readonly editorExcludes: Readonly<Record<string, boolean>>;
  /** Larger files are left out. */
  readonly fileBytesMax: number;
  /** Called now and then with the number of files looked at. */
  readonly onProgress?: (filesSeen: number) => void;
}

export interface ScannedFile {
  /** Relative to the root, with forward slashes. */
  readonly path: string;
  readonly bytes: number;
  readonly mtimeMs: number;
  /** Id of the git blob with the file's content, "" when git does not know it or the file was changed since. */
  readonly blob: string;
}

export interface LeftOutFile {
  /** A folder that is left out as a whole ends in a slash. */
  readonly path: string;
  readonly reason: LeftOutReason;
}

export interface ScanResult {
  /** Sorted by path, compared as UTF-16 code units. */
  readonly files: readonly ScannedFile[];
  readonly leftOut: readonly LeftOutFile[];
  readonly vcs: "git" | "none";
  /** The folder's own name, for the header. */
  readonly name: string;
}

/**
 * Lists what of `root` belongs in a context. Rejects with EngineError `rootMissing` when the folder cannot be listed and with Cancelled
 * when `signal` is aborted. A folder with nothing to read gives an empty list.
 */
export declare function scan(root: string, options: ScanOptions, signal: AbortSignal): Promise<ScanResult>;

export type FileText =
  /** Decoded text without byte order mark; invalid UTF-8 was replaced by U+FFFD. `hash`: SHA-256 of the bytes, hex. */
  | { readonly kind: "text"; readonly text: string; readonly hash: string }
  | { readonly kind: "leftOut"; readonly reason: LeftOutReason };

/** Reads one scanned file and applies the rules that need all of its content. `gone` files are `unreadable`. */
export declare function readFileText(root: string, path: string, fileBytesMax: number): Promise<FileText>;

/** The rules that need content alone (binary, secret, generated), for text that comes from an open editor. */
export declare function judgeText(path: string, text: string): LeftOutReason | undefined;
