// One line for each step: what it is, what came of it, and the time it took.
const columns = 34;

/** A printer of steps. `quiet` keeps silent about steps that had nothing to do. */
export function createSteps({ stream = process.stdout, quiet = false } = {}) {
  const interactive = stream.isTTY === true;
  return {
    interactive,

    /** Prints a line by itself. */
    say(text) {
      stream.write(`${text}\n`);
    },

    /**
     * Runs `work(update)` and prints its line. `work` resolves with the words for the result, or undefined when there was
     * nothing to do; `update(words)` shows how far it is. With `drawsItself` the work shows that on its own, on a terminal.
     */
    async step(title, work, { drawsItself = false } = {}) {
      const startedMs = Date.now();
      let lastPrintMs = startedMs;
      const update = (words) => {
        const now = Date.now();
        if (interactive) {
          if (now - lastPrintMs < 100) return;
          stream.write(`\r\u001b[K  ${title.padEnd(columns)}${words}`);
        } else {
          if (now - lastPrintMs < 15_000) return;
          stream.write(`  ${title.padEnd(columns)}${words}\n`);
        }
        lastPrintMs = now;
      };
      const isQuiet = drawsItself && interactive;
      const heartbeat = setInterval(() => isQuiet || update(`… ${seconds(startedMs)}`), interactive ? 1_000 : 30_000);
      let result;
      try {
        result = await work(update);
      } catch (error) {
        if (interactive) stream.write("\r\u001b[K");
        stream.write(`  ${title.padEnd(columns)}FAILED after ${seconds(startedMs)}\n`);
        throw error;
      } finally {
        clearInterval(heartbeat);
      }
      if (interactive) stream.write("\r\u001b[K");
      if (result === undefined && quiet) return;
      stream.write(
        `  ${title.padEnd(columns)}${(result ?? "up to date").padEnd(40)} ${seconds(startedMs).padStart(8)}\n`,
      );
    },
  };
}

/** Time since `startedMs`, such as "12.3 s". */
export function seconds(startedMs) {
  return `${((Date.now() - startedMs) / 1000).toFixed(1)} s`;
}

/** Prints a failure for a person: the sentence first, then what the failed program said. */
export function printFailure(error, stream = process.stderr) {
  stream.write(`\n${error.message}\n`);
  if (typeof error.tail === "string" && error.tail.trim() !== "") stream.write(`\n${error.tail.trim()}\n`);
  else if (error.name !== "CommandError" && error.name !== "Advice") stream.write(`${error.stack}\n`);
}

/** A failure whose message tells the reader what to do; needs no stack. */
export class Advice extends Error {
  constructor(message) {
    super(message);
    this.name = "Advice";
  }
}
