/** Files → rectangles, nested by folder, as large as their tokens. Pure. */

export interface Rect {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

export interface Sized {
  readonly path: string;
  readonly tokens: number;
}

export type Box<F extends Sized> =
  | {
      readonly kind: "folder";
      readonly path: string;
      readonly name: string;
      readonly rect: Rect;
      readonly hasTitle: boolean;
    }
  | { readonly kind: "file"; readonly file: F; readonly name: string; readonly rect: Rect };

interface Folder<F extends Sized> {
  readonly path: string;
  readonly name: string;
  readonly tokens: number;
  readonly folders: readonly Folder<F>[];
  readonly files: readonly F[];
}

/** Between neighbours, and inside of a folder's edge. */
const gapPx = 2;
const titlePx = 18;
/** Smaller folders show their files without a title. */
const titledWidthPx = 60;
const titledHeightPx = 56;
/** What is smaller cannot be seen or hit. */
const leastPx = 3;

/** Folders come before what is in them, so that drawing in order is right. */
export function layout<F extends Sized>(files: readonly F[], area: Rect): readonly Box<F>[] {
  const root = folderOf(
    "",
    "",
    files.map((file) => ({ parts: file.path.split("/"), file })),
  );
  return inside(root, area);
}

function inside<F extends Sized>(folder: Folder<F>, area: Rect): readonly Box<F>[] {
  const entries = [
    ...folder.folders.map((child) => ({ value: child.tokens, child, file: undefined })),
    ...folder.files.map((file) => ({ value: file.tokens, child: undefined, file })),
  ].toSorted((a, b) => b.value - a.value);
  const rects = squarified(
    entries.map(({ value }) => value),
    area,
  );
  return entries.flatMap(({ child, file }, index) => {
    const whole = rects[index];
    if (whole === undefined) return [];
    const rect = shrunk(whole, gapPx / 2);
    if (rect.width < leastPx || rect.height < leastPx) return [];
    if (file !== undefined) return [{ kind: "file" as const, file, name: nameOf(file.path), rect }];
    return child === undefined ? [] : folderBoxes(child, rect);
  });
}

function folderBoxes<F extends Sized>(folder: Folder<F>, rect: Rect): readonly Box<F>[] {
  const hasTitle = rect.width >= titledWidthPx && rect.height >= titledHeightPx;
  const inner = hasTitle
    ? shrunk({ ...rect, y: rect.y + titlePx, height: rect.height - titlePx }, gapPx)
    : shrunk(rect, gapPx / 2);
  const box = { kind: "folder", path: folder.path, name: folder.name, rect, hasTitle } as const;
  return [box, ...inside(folder, inner)];
}

interface Entry<F> {
  /** What is left of the path. */
  readonly parts: readonly string[];
  readonly file: F;
}

/** A folder that holds nothing but one folder is joined with it: "src/main/java". */
function folderOf<F extends Sized>(path: string, name: string, entries: readonly Entry<F>[]): Folder<F> {
  const below = new Map<string, Entry<F>[]>();
  const files: F[] = [];
  for (const { parts, file } of entries) {
    const [first = "", ...rest] = parts;
    if (rest.length === 0) files.push(file);
    else below.set(first, [...(below.get(first) ?? []), { parts: rest, file }]);
  }
  const folders = [...below].map(([child, inner]) => folderOf(path === "" ? child : `${path}/${child}`, child, inner));
  const [only] = folders;
  if (name !== "" && only !== undefined && folders.length === 1 && files.length === 0) {
    return { ...only, name: `${name}/${only.name}` };
  }
  const tokens = [...folders, ...files].reduce((sum, each) => sum + each.tokens, 0);
  return { path, name, tokens, folders, files };
}

/**
 * Rectangles with areas in proportion to `values`, which descend, filling `area`, as square as rows allow (Bruls,
 * Huizing, van Wijk: Squarified Treemaps, 2000).
 */
export function squarified(values: readonly number[], area: Rect): readonly Rect[] {
  const total = values.reduce((sum, value) => sum + value, 0);
  if (total <= 0 || area.width <= 0 || area.height <= 0) return values.map(() => ({ ...area, width: 0, height: 0 }));
  const scale = (area.width * area.height) / total;
  const areas = values.map((value) => value * scale);
  const rects: Rect[] = [];
  let free = area;
  let start = 0;
  while (start < areas.length) {
    const side = Math.min(free.width, free.height);
    let end = start + 1;
    while (end < areas.length && worst(areas.slice(start, end + 1), side) <= worst(areas.slice(start, end), side))
      end += 1;
    const row = rowIn(free, areas.slice(start, end));
    rects.push(...row.rects);
    free = row.free;
    start = end;
  }
  return rects;
}

/** The most stretched of a row: longer side by shorter side. */
function worst(areas: readonly number[], side: number): number {
  const sum = areas.reduce((total, each) => total + each, 0);
  const [most, least] = [Math.max(...areas), Math.min(...areas)];
  if (sum <= 0 || least <= 0) return Number.POSITIVE_INFINITY;
  return Math.max((side * side * most) / (sum * sum), (sum * sum) / (side * side * least));
}

/** One row along the shorter side, and what is left. */
function rowIn(free: Rect, areas: readonly number[]): { readonly rects: readonly Rect[]; readonly free: Rect } {
  const sum = areas.reduce((total, each) => total + each, 0);
  const isColumn = free.width >= free.height;
  const side = isColumn ? free.height : free.width;
  const depth = side > 0 ? sum / side : 0;
  let at = 0;
  const rects = areas.map((each): Rect => {
    const length = depth > 0 ? each / depth : 0;
    const rect = isColumn
      ? { x: free.x, y: free.y + at, width: depth, height: length }
      : { x: free.x + at, y: free.y, width: length, height: depth };
    at += length;
    return rect;
  });
  const rest = isColumn
    ? { ...free, x: free.x + depth, width: Math.max(0, free.width - depth) }
    : { ...free, y: free.y + depth, height: Math.max(0, free.height - depth) };
  return { rects, free: rest };
}

function shrunk({ x, y, width, height }: Rect, by: number): Rect {
  return { x: x + by, y: y + by, width: Math.max(0, width - 2 * by), height: Math.max(0, height - 2 * by) };
}

function nameOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

export type Direction = "left" | "right" | "up" | "down";

/** Index of the rectangle that an arrow key leads to: the nearest in that direction, sideways distance counting double. */
export function neighbour(rects: readonly Rect[], from: number, direction: Direction): number {
  const start = rects[from];
  if (start === undefined) return rects.length > 0 ? 0 : -1;
  const [x, y] = middle(start);
  let best = from;
  let least = Number.POSITIVE_INFINITY;
  for (const [index, rect] of rects.entries()) {
    const [otherX, otherY] = middle(rect);
    const along = { left: x - otherX, right: otherX - x, up: y - otherY, down: otherY - y }[direction];
    const across = direction === "left" || direction === "right" ? Math.abs(otherY - y) : Math.abs(otherX - x);
    const distance = along + 2 * across;
    if (index === from || along <= 0.5 || distance >= least) continue;
    best = index;
    least = distance;
  }
  return best;
}

function middle({ x, y, width, height }: Rect): readonly [number, number] {
  return [x + width / 2, y + height / 2];
}
