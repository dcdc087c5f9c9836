/** Which command the native thread gets next. Pure. */

/** Which work may delay which; lower is served first. `ahead` is what somebody may ask for next, and nobody waits for. */
const rankOf = { completion: 0, chat: 1, ahead: 2, indexing: 3 } as const;

export type JobKind = keyof typeof rankOf;

export interface Waiting {
  readonly kind: JobKind;
  /** When its job was last served, by a counter; 0 for never. Equals take turns by it. */
  readonly servedAt: number;
  /** Order of arrival. */
  readonly arrivedAt: number;
}

/** Index of the command to send next: by kind, then the job that was served longest ago, then the oldest; -1 of none. */
export function nextIndex(waiting: readonly Waiting[]): number {
  let best = -1;
  let bestItem: Waiting | undefined;
  for (const [index, item] of waiting.entries()) {
    if (bestItem === undefined || before(item, bestItem)) {
      best = index;
      bestItem = item;
    }
  }
  return best;
}

/** All of `waiting` in the order in which `nextIndex` would name them. */
export function inOrder<T extends Waiting>(waiting: readonly T[]): readonly T[] {
  return waiting.toSorted((a, b) => (before(a, b) ? -1 : 1));
}

/** The kind that is served first; undefined of none. */
export function mostUrgent(kinds: readonly JobKind[]): JobKind | undefined {
  return kinds.toSorted((a, b) => rankOf[a] - rankOf[b])[0];
}

/** Whether a waiting command of kind `waiting` is worth interrupting a running one of kind `running`. */
export function outranks(waiting: JobKind, running: JobKind): boolean {
  return rankOf[waiting] < rankOf[running];
}

function before(a: Waiting, b: Waiting): boolean {
  const order = rankOf[a.kind] - rankOf[b.kind] || a.servedAt - b.servedAt || a.arrivedAt - b.arrivedAt;
  return order < 0;
}
