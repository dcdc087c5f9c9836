// How alike two short texts are.

/** 100 times one minus Levenshtein's distance over the longer length. */
export function similarity(a, b) {
  let last = Array.from({ length: b.length + 1 }, (_, at) => at);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      next.push(Math.min(last[j] + 1, next[j - 1] + 1, last[j - 1] + Number(a[i - 1] !== b[j - 1])));
    }
    last = next;
  }
  return 100 * (1 - last[b.length] / Math.max(1, a.length, b.length));
}
