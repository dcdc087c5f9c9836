// What the extension says of each answer to the editor's requests for ghost text, in its log at the level "debug".
import { existsSync, readFileSync, readdirSync } from "node:fs";
import path from "node:path";

const logName = "Nosa.log";
const answerLine = /^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) \[debug\] Completion: (\{.*\})$/;

/**
 * `[{at, totalMs, engineMs, stats}]` in order: when it was given (epoch, ms), how long the extension took from the editor's call on, how much of that it
 * waited for the engine, and the engine's stats; null where nothing was offered.
 */
export class Answers {
  #folder;
  #file;
  #read = 0;
  all = [];

  /** `home` is that of the editor. */
  constructor(home) {
    this.#folder = path.join(home, "profile/data/logs");
  }

  /** Takes in what is new. */
  refresh() {
    this.#file ??= this.#find();
    if (this.#file === undefined) return;
    const text = readFileSync(this.#file, "utf8");
    const end = text.lastIndexOf("\n") + 1;
    for (const line of text.slice(this.#read, end).split("\n")) {
      const [, time, json] = answerLine.exec(line.trimEnd()) ?? [];
      if (json !== undefined) this.all.push({ at: new Date(time.replace(" ", "T")).getTime(), ...JSON.parse(json) });
    }
    this.#read = end;
  }

  /** The last answer from `from` to `to`, both included. */
  between(from, to) {
    return this.all.findLast(({ at }) => at >= from && at <= to);
  }

  /** The log of the newest window. */
  #find() {
    if (!existsSync(this.#folder)) return undefined;
    return readdirSync(this.#folder, { recursive: true })
      .filter((name) => path.basename(name) === logName)
      .sort()
      .map((name) => path.join(this.#folder, name))
      .at(-1);
  }
}
