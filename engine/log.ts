/** The engine's log: one line an event, in the data folder, in two files that take turns. */

import * as fs from "node:fs";
import * as path from "node:path";

const fileBytesMax = 2 * 1024 * 1024;

export interface Log {
  info(message: string): void;
  warn(message: string, error?: unknown): void;
  error(message: string, error?: unknown): void;
}

/** Says nothing; for tests and for code that runs without an engine. */
export const silentLog: Log = { info: () => undefined, warn: () => undefined, error: () => undefined };

/** Owns the open log file. Contents of the user's files and questions are never logged. */
export class FileLog implements Log {
  readonly path: string;
  #file: number;
  #bytes: number;

  private constructor(file: string, descriptor: number, bytes: number) {
    this.path = file;
    this.#file = descriptor;
    this.#bytes = bytes;
  }

  static open(folder: string): FileLog {
    fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
    const file = path.join(folder, "engine.log");
    const descriptor = fs.openSync(file, "a", 0o600);
    return new FileLog(file, descriptor, fs.fstatSync(descriptor).size);
  }

  info(message: string): void {
    this.#write("info", message);
  }

  warn(message: string, error?: unknown): void {
    this.#write("warn", withError(message, error));
  }

  error(message: string, error?: unknown): void {
    this.#write("error", withError(message, error));
  }

  dispose(): void {
    fs.closeSync(this.#file);
  }

  #write(level: string, message: string): void {
    const line = `${new Date().toISOString()} ${process.pid} ${level} ${message.replaceAll("\n", "\n    ")}\n`;
    try {
      if (this.#bytes > fileBytesMax) this.#turn();
      // Synchronous, so that the last words of a dying engine are on disk.
      this.#bytes += fs.writeSync(this.#file, line);
    } catch {
      // A full disk must not take the engine down because of its log.
    }
  }

  #turn(): void {
    fs.closeSync(this.#file);
    fs.renameSync(this.path, `${this.path}.1`);
    this.#file = fs.openSync(this.path, "a", 0o600);
    this.#bytes = 0;
  }
}

function withError(message: string, error: unknown): string {
  if (error === undefined) return message;
  return `${message}: ${error instanceof Error ? (error.stack ?? error.message) : JSON.stringify(error)}`;
}
