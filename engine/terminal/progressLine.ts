/** One line on stderr that is written over: a bar where there is a terminal, a line now and then where there is none. */

const barCells = 24;
const plainEveryMs = 5_000;

export class ProgressLine {
  readonly #stream: NodeJS.WriteStream;
  #shown = false;
  #plainAt = -Infinity;

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream;
  }

  /** `share`: 0 to 1, or -1 while unknown. */
  show(label: string, share: number, details: string): void {
    const percent = share < 0 ? "" : ` ${Math.floor(share * 100)} %`;
    if (!this.#stream.isTTY) {
      const now = performance.now();
      if (now - this.#plainAt < plainEveryMs) return;
      this.#plainAt = now;
      this.#stream.write(`${label}${percent} ${details}\n`);
      return;
    }
    const full = share < 0 ? 0 : Math.round(share * barCells);
    const bar = share < 0 ? "" : ` [${"#".repeat(full)}${".".repeat(barCells - full)}]`;
    const line = `${label}${bar}${percent} ${details}`;
    this.#stream.write(`\r\u001b[K${line.slice(0, Math.max(20, this.#stream.columns - 1))}`);
    this.#shown = true;
  }

  clear(): void {
    if (this.#shown) this.#stream.write("\r\u001b[K");
    this.#shown = false;
    this.#plainAt = -Infinity;
  }
}

export function seconds(count: number): string {
  if (count < 0) return "";
  if (count < 90) return `${Math.ceil(count)} s left`;
  if (count < 5_400) return `${Math.ceil(count / 60)} min left`;
  return `${(count / 3_600).toFixed(1)} h left`;
}

export function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}
