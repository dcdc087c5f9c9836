/**
 * The merging that both kinds of vocabulary share: of all neighbours that may unite, those of the lowest priority number do, the leftmost of equals, until none
 * may.
 */

/** For uniting `[start, middle)` and `[middle, end)` of the text: lower goes first, undefined is never. */
export type PriorityOf = (start: number, middle: number, end: number) => number | undefined;

/** Neighbours that may unite. */
interface Union {
  readonly left: number;
  readonly right: number;
  readonly priority: number;
  /** End of the union when it was queued; when its right side has grown or gone since, it is out of date. */
  readonly end: number;
}

/**
 * `borders`: where each symbol starts, and the end of the text. Returns the borders that are left, in order. Takes n log n time for n symbols.
 */
export function mergeSymbols(borders: readonly number[], priorityOf: PriorityOf): readonly number[] {
  const count = borders.length - 1;
  // Symbols as a doubly linked list. One that was merged away has no end.
  const gone = -1;
  const ends = Int32Array.from({ length: count }, (_, at) => borders[at + 1] ?? 0);
  const before = Int32Array.from({ length: count }, (_, at) => at - 1);
  const after = Int32Array.from({ length: count }, (_, at) => (at + 1 < count ? at + 1 : gone));
  const queue: Union[] = [];
  const offer = (left: number, right: number): void => {
    if (left < 0 || right < 0) return;
    const end = ends[right] ?? 0;
    const priority = priorityOf(borders[left] ?? 0, borders[right] ?? 0, end);
    if (priority !== undefined) push(queue, { left, right, priority, end });
  };

  for (let at = 1; at < count; at++) offer(at - 1, at);
  for (let best = pop(queue); best !== undefined; best = pop(queue)) {
    const { left, right, end } = best;
    // The right side is unchanged if it still ends there, and the left side if it still ends where the right one starts.
    if (ends[right] !== end || ends[left] !== borders[right]) continue;
    ends[left] = end;
    ends[right] = gone;
    const next = after[right] ?? gone;
    after[left] = next;
    if (next >= 0) before[next] = left;
    offer(before[left] ?? gone, left);
    offer(left, next);
  }
  return [...borders.slice(0, count).filter((_, at) => ends[at] !== gone), ...borders.slice(count)];
}

function goesFirst(a: Union, b: Union): boolean {
  return a.priority < b.priority || (a.priority === b.priority && a.left < b.left);
}

function push(heap: Union[], union: Union): void {
  let at = heap.length;
  heap.push(union);
  while (at > 0) {
    const parent = (at - 1) >> 1;
    const above = heap[parent];
    if (above === undefined || !goesFirst(union, above)) break;
    heap[at] = above;
    at = parent;
  }
  heap[at] = union;
}

function pop(heap: Union[]): Union | undefined {
  const first = heap[0];
  const last = heap.pop();
  if (first === undefined || last === undefined || heap.length === 0) return first;
  let at = 0;
  for (;;) {
    let child = 2 * at + 1;
    let below = heap[child];
    if (below === undefined) break;
    const other = heap[child + 1];
    if (other !== undefined && goesFirst(other, below)) {
      child += 1;
      below = other;
    }
    if (!goesFirst(below, last)) break;
    heap[at] = below;
    at = child;
  }
  heap[at] = last;
  return first;
}
