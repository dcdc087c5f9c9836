/** Files → tokens, most useful first and until the budget is used up. What was read before is not read again. */

import { throwIfAborted } from "../errors";
import type { LeftOutReason } from "../protocol";
import { readFileText, type ScannedFile } from "../repository/scanner";
import type { TokenizedFile } from "../repository/segments";
import type { ModelText } from "../sessions/modelText";
import type { FileRecord } from "../contexts/context";

export interface ReadFile {
  readonly record: FileRecord;
  readonly tokenized: TokenizedFile;
}

export interface ReadResult {
  /** In order of usefulness. */
  readonly files: readonly ReadFile[];
  readonly leftOut: readonly { readonly path: string; readonly reason: LeftOutReason }[];
  /** Tokens of earlier contents, by path, of files that were read before and have changed. */
  readonly before: ReadonlyMap<string, Uint32Array>;
}

export interface ReadOptions {
  readonly root: string;
  /** Most useful first. */
  readonly files: readonly ScannedFile[];
  readonly text: ModelText;
  readonly fileBytesMax: number;
  readonly tokensMax: number;
  readonly signal: AbortSignal;
  readonly onProgress: (filesDone: number, path: string) => void;
}

/** So many files are with the tokenizer's thread at once. */
const filesAhead = 8;

/** After so many files in a row that no longer fit, the rest is not tried. */
const missesMax = 32;

/** Owns the tokens of files that were read, so that an edit costs the edited file alone. */
export class FileReader {
  readonly #known = new Map<string, ReadFile>();

  async read(options: ReadOptions): Promise<ReadResult> {
    const files: ReadFile[] = [];
    const leftOut: { path: string; reason: LeftOutReason }[] = [];
    const before = new Map<string, Uint32Array>();
    let tokens = 0;
    let misses = 0;
    let next = 0;
    const ahead: { file: ScannedFile; result: Promise<ReadFile | LeftOutReason> }[] = [];
    while (next < options.files.length || ahead.length > 0) {
      throwIfAborted(options.signal);
      while (ahead.length < filesAhead && misses < missesMax) {
        const file = options.files[next];
        if (file === undefined) break;
        next += 1;
        const result = this.#readOne(options, file, before);
        // Whoever is not waited for because the work was cancelled must not end the process.
        result.catch(() => undefined);
        ahead.push({ file, result });
      }
      const first = ahead.shift();
      if (first === undefined) break;
      const result = await first.result;
      options.onProgress(files.length + leftOut.length + 1, first.file.path);
      if (typeof result === "string") {
        leftOut.push({ path: first.file.path, reason: result });
      } else if (tokens + result.record.tokens > options.tokensMax) {
        leftOut.push({ path: first.file.path, reason: "budget" });
        misses += 1;
      } else {
        files.push(result);
        tokens += result.record.tokens;
        misses = 0;
      }
    }
    for (const file of options.files.slice(next)) leftOut.push({ path: file.path, reason: "budget" });
    this.#forgetOthers(files);
    return { files, leftOut, before };
  }

  async #readOne(
    options: ReadOptions,
    file: ScannedFile,
    before: Map<string, Uint32Array>,
  ): Promise<ReadFile | LeftOutReason> {
    const known = this.#known.get(file.path);
    if (known !== undefined && known.record.bytes === file.bytes && known.record.mtimeMs === file.mtimeMs) return known;
    const content = await readFileText(options.root, file.path, options.fileBytesMax);
    if (content.kind === "leftOut") return content.reason;
    const { bytes, mtimeMs, path } = file;
    if (known !== undefined && known.record.hash === content.hash) {
      const same = { ...known, record: { ...known.record, bytes, mtimeMs } };
      this.#known.set(path, same);
      return same;
    }
    const tokenized = await options.text.file(path, content.text, options.signal);
    const tokens = tokenized.headerTokens.length + tokenized.tokens.length;
    const read = { record: { path, tokens, bytes, mtimeMs, hash: content.hash }, tokenized };
    this.#known.set(path, read);
    if (known !== undefined) before.set(path, known.tokenized.tokens);
    return read;
  }

  #forgetOthers(files: readonly ReadFile[]): void {
    const wanted = new Set(files.map(({ record }) => record.path));
    for (const path of this.#known.keys()) if (!wanted.has(path)) this.#known.delete(path);
  }
}
