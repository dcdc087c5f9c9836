// Answers of finished cases, one a line in the benchmarks' cache folder, so that a run that is stopped goes on where it was.
import { appendFileSync, existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { cacheFolder } from "../lib/cacheFolder.mjs";

export class Kept {
  #file;
  #answers = new Map();

  /** `basis` is everything but the case that an answer depends on. */
  constructor(basis) {
    this.#file = path.join(cacheFolder("replay"), `${basis.replaceAll(/[^\w.-]+/g, "-")}.jsonl`);
    if (!existsSync(this.#file)) return;
    for (const line of readFileSync(this.#file, "utf8").split("\n")) {
      const answer = parsed(line);
      if (answer !== undefined) this.#answers.set(keyOf(answer.method, answer.id), answer);
    }
  }

  get(method, id) {
    return this.#answers.get(keyOf(method, id));
  }

  put(answer) {
    this.#answers.set(keyOf(answer.method, answer.id), answer);
    appendFileSync(this.#file, `${JSON.stringify(answer)}\n`);
  }
}

/** A line that was cut off by a stop is nobody's answer. */
function parsed(line) {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

function keyOf(method, id) {
  return `${method} ${id}`;
}
