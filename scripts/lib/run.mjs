// Runs other programs: output goes to a log file, and to the reader only when something fails.
import { spawn } from "node:child_process";
import { createWriteStream, mkdirSync } from "node:fs";
import path from "node:path";
import { checkoutCache, root } from "./paths.mjs";

/** What a failed command throws: the sentence, and the end of what it printed. */
export class CommandError extends Error {
  constructor(message, tail) {
    super(message);
    this.name = "CommandError";
    this.tail = tail;
  }
}

const runningGroups = new Set();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.on(signal, () => {
    stopAll();
    process.exit(128 + (signal === "SIGINT" ? 2 : signal === "SIGTERM" ? 15 : 1));
  });
}
process.on("exit", stopAll);

/** Stops every group of processes started here that still runs. */
export function stopAll() {
  for (const child of runningGroups) stopGroup(child);
}

/** Ends a child and everything it started. */
export function stopGroup(child, signal = "SIGTERM") {
  runningGroups.delete(child);
  if (child.pid === undefined) return;
  try {
    process.kill(process.platform === "win32" ? child.pid : -child.pid, signal);
  } catch {
    // It is gone already.
  }
}

/** Starts a program in a process group of its own that ends with us. */
export function start(command, args, options = {}) {
  const child = spawn(command, args, { cwd: root, detached: process.platform !== "win32", ...options });
  runningGroups.add(child);
  child.once("exit", () => runningGroups.delete(child));
  child.once("error", () => runningGroups.delete(child));
  return child;
}

/**
 * Runs a program to its end and resolves with its standard output.
 *
 * `log` names the file under .cache/logs that gets both streams; `onText` sees every piece as it comes. A non-zero exit
 * throws a CommandError, unless `allowFailure` is set: then the result carries the code.
 * `showErrors` lets standard error through to the reader, for a program that draws a bar there.
 *
 * @param {string} command
 * @param {readonly string[]} args
 * @param {{ cwd?: string, env?: Record<string, string>, log?: string, onText?: (text: string) => void,
 *   allowFailure?: boolean, timeoutMs?: number, showErrors?: boolean }} options
 * @returns {Promise<{ code: number, stdout: string, tail: string, logFile?: string }>}
 */
export function run(
  command,
  args,
  { cwd = root, env = {}, log, onText, allowFailure = false, timeoutMs = 0, showErrors = false } = {},
) {
  return new Promise((resolve, reject) => {
    const logFile = log === undefined ? undefined : path.join(checkoutCache, "logs", `${log}.log`);
    if (logFile !== undefined) mkdirSync(path.dirname(logFile), { recursive: true });
    const sink = logFile === undefined ? undefined : createWriteStream(logFile);
    const child = start(command, args, {
      cwd,
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", showErrors ? "inherit" : "pipe"],
    });
    let stdout = "";
    let tail = "";
    const take = (text) => {
      tail = (tail + text).slice(-6000);
      sink?.write(text);
      onText?.(text);
    };
    child.stdout.setEncoding("utf8").on("data", (text) => {
      stdout += text;
      take(text);
    });
    child.stderr?.setEncoding("utf8").on("data", take);
    let timedOut = false;
    const timer =
      timeoutMs === 0
        ? undefined
        : setTimeout(() => {
            timedOut = true;
            // First politely: it may have groups of its own to stop.
            stopGroup(child);
            setTimeout(() => stopGroup(child, "SIGKILL"), 10_000).unref();
          }, timeoutMs);
    child.once("error", (error) => {
      clearTimeout(timer);
      sink?.end();
      if (allowFailure) resolve({ code: 127, stdout, tail: error.message, logFile });
      else reject(new CommandError(`Could not start ${command}: ${error.message}`, ""));
    });
    child.once("close", (code, signal) => {
      clearTimeout(timer);
      sink?.end();
      if (code === 0 || allowFailure) {
        resolve({ code: code ?? 1, stdout, tail, logFile });
        return;
      }
      const why = timedOut
        ? `ran longer than ${timeoutMs / 1000} s`
        : signal === null
          ? `exited with ${code}`
          : `was ended by ${signal}`;
      reject(
        new CommandError(
          `${[path.basename(command), ...args].join(" ").slice(0, 200)} ${why}${logFile === undefined ? "" : ` (all of its output: ${path.relative(root, logFile)})`}`,
          tail,
        ),
      );
    });
  });
}

/** The first line that `command args` prints, or undefined when it cannot be run. */
export async function versionOf(command, args = ["--version"]) {
  const { code, stdout } = await run(command, args, { allowFailure: true });
  return code === 0 ? stdout.split("\n")[0].trim() : undefined;
}
