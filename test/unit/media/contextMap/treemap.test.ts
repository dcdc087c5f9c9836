import { describe, expect, it } from "vitest";
import { layout, neighbour, squarified, type Rect } from "../../../../media/contextMap/treemap";

const area: Rect = { x: 10, y: 20, width: 640, height: 400 };

/** Fresh each run, with a long tail as repositories have. */
const values = Array.from({ length: 60 }, () => Math.ceil(20_000 * Math.random() ** 4) + 1).toSorted((a, b) => b - a);

function overlap(a: Rect, b: Rect): number {
  const wide = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x);
  const high = Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y);
  return Math.max(0, wide) * Math.max(0, high);
}

describe("a treemap", () => {
  it("gives each value an area in proportion, inside the whole, over nothing else", () => {
    const rects = squarified(values, area);
    const total = values.reduce((sum, value) => sum + value, 0);
    for (const [index, { x, y, width, height }] of rects.entries()) {
      const expected = ((values[index] ?? 0) / total) * area.width * area.height;
      expect(Math.abs(width * height - expected)).toBeLessThan(1e-6 * area.width * area.height);
      expect(x).toBeGreaterThanOrEqual(area.x - 1e-6);
      expect(y + height).toBeLessThanOrEqual(area.y + area.height + 1e-6);
    }
    for (const [index, a] of rects.entries()) {
      for (const b of rects.slice(index + 1)) expect(overlap(a, b)).toBeLessThan(1e-3);
    }
  });

  it("keeps the large ones from being slivers", () => {
    const [first] = squarified([6, 6, 4, 3, 2, 2, 1], { x: 0, y: 0, width: 600, height: 400 });
    expect((first?.width ?? 0) / (first?.height ?? 1)).toBeCloseTo(1.5, 5);
  });

  it("stands nothing and no room", () => {
    expect(squarified([], area)).toEqual([]);
    expect(squarified([1, 2], { ...area, width: 0 }).every(({ width }) => width === 0)).toBe(true);
    expect(layout([], area)).toEqual([]);
  });

  it("nests files in their folders, which come first, and joins folders that hold one folder", () => {
    const files = ["src/main/java/a.java", "src/main/java/b.java", "README.md"].map((path) => ({ path, tokens: 500 }));
    const boxes = layout(files, area);
    expect(boxes.map((box) => (box.kind === "folder" ? `${box.name}/` : box.name))).toEqual([
      "src/main/java/",
      "a.java",
      "b.java",
      "README.md",
    ]);
    const [folder, file] = boxes;
    if (folder === undefined || file === undefined) throw new Error("Nothing was drawn.");
    expect(overlap(folder.rect, file.rect)).toBeCloseTo(file.rect.width * file.rect.height, 3);
  });

  it("is walked by arrow keys to every neighbour and back", () => {
    const rects: readonly Rect[] = [
      { x: 0, y: 0, width: 10, height: 10 },
      { x: 10, y: 0, width: 10, height: 10 },
      { x: 0, y: 10, width: 10, height: 10 },
    ];
    expect(neighbour(rects, 0, "right")).toBe(1);
    expect(neighbour(rects, 1, "left")).toBe(0);
    expect(neighbour(rects, 0, "down")).toBe(2);
    expect(neighbour(rects, 2, "up")).toBe(0);
    expect(neighbour(rects, 0, "left")).toBe(0);
    expect(neighbour([], 0, "left")).toBe(-1);
  });
});
