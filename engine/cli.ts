/**
 * The terminal program: the same engine as the editor's, through the same socket. Only `tokens`, which checks numbers
 * and knows no text, runs the native addon in its own process.
 *
 * Exit codes: 0 done, 1 failed (one sentence on stderr), 2 asked wrongly, 130 stopped by Ctrl+C.
 */

import { ConnectError } from "./connect";
import { EngineError } from "./errors";
import { TerminalClient } from "./terminal/client";
import { commands } from "./terminal/commands";
import { parseOptions, usage } from "./terminal/options";
import { runTokensCommand } from "./tokensCommand";

async function main(): Promise<number> {
  const [command, ...words] = process.argv.slice(2);
  if (command === undefined || command === "help" || command === "--help") {
    process.stdout.write(usage);
    return command === undefined ? 2 : 0;
  }
  if (command === "tokens") return runTokensCommand(words);
  const options = parseOptions(command, words, process.cwd());
  const stop = new AbortController();
  process.on("SIGINT", () => {
    // The first asks the engine to stop and waits for what it says; the second does not wait.
    if (stop.signal.aborted) process.exit(130);
    stop.abort();
  });
  const client = await TerminalClient.connect(options.settings, stop.signal);
  try {
    await commands[options.command](client, options, process, stop.signal);
  } finally {
    client.dispose();
  }
  return stop.signal.aborted ? 130 : 0;
}

function failed(error: unknown): number {
  const stopped = error instanceof Error && (error.name === "AbortError" || error.message === "Cancelled");
  if (stopped) return 130;
  const known = error instanceof EngineError || error instanceof ConnectError;
  const message = error instanceof Error ? error.message : String(error);
  process.stderr.write(`${known ? message : `Something went wrong: ${message}`}\n`);
  return known && error.kind === "badRequest" ? 2 : 1;
}

main()
  .catch(failed)
  .then((code) => {
    process.exitCode = code;
  })
  .catch(() => undefined);
