// How long something that becomes due at any moment has to wait for a thread's event loop.

const periodMs = 2;

/**
 * A timer that is due every 2 ms notes how late it comes: while the thread is busy for L ms, whatever becomes due in that time waits up to L. So the share
 * of all moments that have to wait longer than x is the sum of all (L - x) over the time that was measured, and long blocks count by their length.
 */
export class Lateness {
  #performance;
  #threadCpuUsage;
  #timer;
  #startedMs;
  #startedCpuMs;
  #lastMs;
  #lastCpuMs;
  /** Milliseconds late, and how much of that the thread itself was computing: the rest it waited for a core. */
  #late = [];
  #busy = [];

  constructor({ performance, threadCpuUsage }) {
    this.#performance = performance;
    this.#threadCpuUsage = threadCpuUsage;
    this.#startedMs = this.#lastMs = performance.now();
    this.#startedCpuMs = this.#lastCpuMs = this.#cpuMs();
    this.#arm();
  }

  stop() {
    clearTimeout(this.#timer);
    const totalMs = this.#performance.now() - this.#startedMs;
    return {
      totalMs,
      waitP99: waitOf(this.#late, totalMs, 0.99),
      waitP999: waitOf(this.#late, totalMs, 0.999),
      longest: this.#late.reduce((most, each) => Math.max(most, each), 0),
      // Without the thread's own clock the two cannot be told apart.
      busyP99: this.#threadCpuUsage === undefined ? undefined : waitOf(this.#busy, totalMs, 0.99),
      busyLongest: this.#busy.reduce((most, each) => Math.max(most, each), 0),
      cpuShare: this.#threadCpuUsage === undefined ? undefined : (this.#cpuMs() - this.#startedCpuMs) / totalMs,
    };
  }

  #arm() {
    this.#timer = setTimeout(() => {
      const nowMs = this.#performance.now();
      const cpuMs = this.#cpuMs();
      const lateMs = nowMs - this.#lastMs - periodMs;
      if (lateMs > 0.5) {
        this.#late.push(lateMs);
        this.#busy.push(Math.min(lateMs, cpuMs - this.#lastCpuMs));
      }
      this.#lastMs = nowMs;
      this.#lastCpuMs = cpuMs;
      this.#arm();
    }, periodMs);
  }

  #cpuMs() {
    if (this.#threadCpuUsage === undefined) return 0;
    const { user, system } = this.#threadCpuUsage();
    return (user + system) / 1000;
  }
}

/** The wait that `share` of all moments do not exceed. */
export function waitOf(blocks, totalMs, share) {
  const sorted = [...blocks].sort((a, b) => b - a);
  const allowed = (1 - share) * totalMs;
  let sum = 0;
  for (let count = 0; count < sorted.length; count += 1) {
    // With the `count` longest blocks cut down to the length of the next one.
    if (sum - count * sorted[count] >= allowed) return (sum - allowed) / count;
    sum += sorted[count];
  }
  return sum <= allowed ? 0 : (sum - allowed) / sorted.length;
}
