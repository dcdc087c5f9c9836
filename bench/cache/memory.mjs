// What an engine process takes of the machine's memory, as Linux counts it.
import { existsSync, readFileSync } from "node:fs";

/** Anonymous memory of the process now, in bytes: neither files that are mapped nor the page cache. Undefined where there is no /proc. */
export function anonymousBytes(pid) {
  const file = `/proc/${pid}/status`;
  if (!existsSync(file)) return undefined;
  const match = /^RssAnon:\s+(\d+) kB$/m.exec(readFileSync(file, "utf8"));
  return match === null ? undefined : Number(match[1]) * 1024;
}

/** The most of it while `work` runs. */
export async function mostAnonymousBytes(pid, work) {
  let most = 0;
  const look = () => {
    most = Math.max(most, anonymousBytes(pid) ?? 0);
  };
  const timer = setInterval(look, 100);
  try {
    const result = await work();
    look();
    return { most, result };
  } finally {
    clearInterval(timer);
  }
}
