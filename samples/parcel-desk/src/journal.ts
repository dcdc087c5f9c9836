/**
 * The journal: one JSON object a line, appended and flushed before anybody is told that something happened.
 *
 * A crash can leave half a line at the end. It belongs to an event that nobody was told of, so it is cut off at the next
 * start. A broken line anywhere else means that somebody edited the file, and stops the start with its line number.
 */

import { closeSync, existsSync, fsyncSync, ftruncateSync, mkdirSync, openSync, readFileSync, writeSync } from "node:fs";
import path from "node:path";
import type { Event } from "./types.js";

export class Journal {
  readonly #file: number;

  private constructor(file: number) {
    this.#file = file;
  }

  /** Opens `events.jsonl` in the folder, made if need be, and hands every event in it to `replay`. */
  static open(folder: string, replay: (event: Event) => void): Journal {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const name = path.join(folder, "events.jsonl");
    const text = existsSync(name) ? readFileSync(name, "utf8") : "";
    const file = openSync(name, "a+", 0o600);
    const whole = text.slice(0, text.lastIndexOf("\n") + 1);
    if (whole.length < text.length) ftruncateSync(file, Buffer.byteLength(whole));
    whole
      .split("\n")
      .filter((line) => line !== "")
      .forEach((line, index) => replay(parse(line, index + 1)));
    return new Journal(file);
  }

  append(event: Event): void {
    writeSync(this.#file, `${JSON.stringify(event)}\n`);
    fsyncSync(this.#file);
  }

  close(): void {
    closeSync(this.#file);
  }
}

function parse(line: string, number: number): Event {
  try {
    return JSON.parse(line) as Event;
  } catch {
    throw new Error(`Line ${number} of the journal is not JSON; restore it from a backup`);
  }
}
