/**
 * One engine at a time writes to the saved contexts. Beside the lock of the process, which tells clients where to
 * connect, this one is about the files: an engine that was asked to leave may still be saving when the next one starts.
 */

import * as fs from "node:fs/promises";
import * as path from "node:path";
import { EngineError } from "../errors";
import { isAlive } from "../util/isAlive";

/** The owner says this often that it is there; one that has not for `staleMs` is gone, whoever has its pid now. */
const beatMs = 2_000;
const staleMs = 10_000;
const retryMs = 50;
const settleMs = 10;
/** An engine that leaves is given this long: longer than it may take. */
const waitMsMax = 9_000;

/** Holds the file that names the owner. */
export class StoreOwner {
  readonly #file: string;
  readonly #beat: NodeJS.Timeout;

  private constructor(file: string) {
    this.#file = file;
    this.#beat = setInterval(() => {
      const now = new Date();
      fs.utimes(file, now, now).catch(() => undefined);
    }, beatMs);
    this.#beat.unref();
  }

  /** Waits a while for an owner that is leaving. Rejects with a sentence when it stays. */
  static async take(folder: string, waitMs = waitMsMax): Promise<StoreOwner> {
    const file = path.join(folder, "owner");
    const until = Date.now() + waitMs;
    for (;;) {
      const other = await livingOwner(file);
      if (other === undefined) {
        await fs.rm(file, { force: true });
        if (await claim(file)) return new StoreOwner(file);
        continue;
      } else if (Date.now() >= until) {
        throw new EngineError(
          "internal",
          `Another engine of Nosa (process ${other}) uses what was read in ${folder}: reload every window, or end that process.`,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, retryMs));
    }
  }

  async release(): Promise<void> {
    clearInterval(this.#beat);
    if ((await pidIn(this.#file)) === process.pid) await fs.rm(this.#file, { force: true });
  }
}

async function claim(file: string): Promise<boolean> {
  try {
    await fs.writeFile(file, String(process.pid), { flag: "wx", mode: 0o600 });
    // Whoever found the same dead owner at the same moment may have removed the claim with it.
    await new Promise((resolve) => setTimeout(resolve, settleMs));
    return (await pidIn(file)) === process.pid;
  } catch {
    return false;
  }
}

/** Its pid; undefined when nobody owns the folder, or whoever did is gone. */
async function livingOwner(file: string): Promise<number | undefined> {
  const pid = await pidIn(file);
  if (pid === undefined || pid === process.pid) return undefined;
  const age = await fs.stat(file).then(
    ({ mtimeMs }) => Date.now() - mtimeMs,
    () => Infinity,
  );
  return age < staleMs && isAlive(pid) ? pid : undefined;
}

async function pidIn(file: string): Promise<number | undefined> {
  const text = await fs.readFile(file, "utf8").catch(() => "");
  const pid = Number.parseInt(text, 10);
  return Number.isInteger(pid) && pid > 0 ? pid : undefined;
}
