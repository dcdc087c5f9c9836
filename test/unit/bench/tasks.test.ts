import { describe, expect, it } from "vitest";
import { liveFiles, windows } from "../../../eval/tasks.mjs";

const body = (at: number, other: number): string =>
  [
    `def compute_total_${at}(prices, discount_${at}):`,
    `    return sum(prices) - discount_${at}`,
    "",
    `def render_report_${at}(order, currency_${at}):`,
    `    text = order.title`,
    ...Array.from({ length: 40 }, (_, line) => `    text = text + order.line${line}`),
    `    total = compute_total_${other}(order.prices, 3)`,
    ...Array.from({ length: 20 }, (_, line) => `    text = text + order.tail${line}`),
    `    return text`,
    "",
  ].join("\n");

const files = Array.from({ length: 12 }, (_, at) => ({
  path: `shop/module${String(at).padStart(2, "0")}.py`,
  text: body(at, (at + 1) % 12),
}));
const repository = { name: "pypi/shop", files: [...files, { path: "tests/test_shop.py", text: body(90, 91) }] };
const characters = (text: string): number => text.length;

describe("windows", () => {
  const size = files.slice(0, 6).reduce((sum, { text }) => sum + text.length, 0);
  const found = windows(repository, size, characters, { lookups: 6, lines: 2 });

  it("cuts a repository into runs of the wanted size, tests aside, no file twice", () => {
    expect(found.length).toBe(2);
    const paths = found.flatMap(({ files: own, live }) => [...own, ...live].map(({ path }) => path));
    expect(new Set(paths).size).toBe(paths.length);
    expect(paths).not.toContain("tests/test_shop.py");
  });

  it("leaves live files out, and asks nothing whose answer stands there", () => {
    for (const { files: own, live, lookups } of found) {
      expect(live.length).toBeGreaterThan(0);
      for (const file of live) expect(own).not.toContainEqual(file);
      expect(lookups.length).toBe(6);
      expect(new Set(lookups.map(({ kind }: { readonly kind: string }) => kind))).toEqual(
        new Set(["signature", "definition", "calls"]),
      );
      for (const { path } of lookups) expect(own.map((file: { readonly path: string }) => file.path)).toContain(path);
    }
  });

  it("hides lines that use what another file defines and the text around does not show", () => {
    for (const { files: own, live, lines } of found) {
      for (const { path, prefix, suffix, line, name, home, cut } of lines) {
        const { text = "" } = live.find((file: { readonly path: string }) => file.path === path) ?? {};
        expect(line).toContain(name);
        expect(prefix).not.toContain(name);
        expect(suffix).not.toContain(name);
        expect(own.map((file: { readonly path: string }) => file.path)).toContain(home);
        expect(text).toContain(`${line}${suffix.slice(0, 40)}`);
        expect(text).toContain(`${prefix.slice(-40)}${line}`);
        expect(cut.typed + cut.rest).toBe(line);
      }
    }
    expect(found.some(({ lines }) => lines.length > 0)).toBe(true);
  });
});

describe("liveFiles", () => {
  const few = liveFiles(files, 1);
  const more = liveFiles(files, 3);

  it("takes one file when it has lines enough, and no more files than it takes for them", () => {
    expect([few.live.length, few.lines.length]).toEqual([1, 1]);
    expect(more.lines.length).toBe(3);
    expect(more.live.length).toBe(3);
  });

  it("takes one file for perplexity where no lines are wanted", () => {
    const { live, lines } = liveFiles(files, 0);
    expect([live.length, lines.length]).toEqual([1, 0]);
  });

  it("stops at four files, or at a quarter of the context, and gives no line twice", () => {
    const { live, lines } = liveFiles(files, 50);
    const characters = (of: readonly { readonly text: string }[]): number =>
      of.reduce((sum, { text }) => sum + text.length, 0);
    expect(characters(live)).toBeLessThanOrEqual(characters(files) / 4);
    expect(live.length).toBeLessThanOrEqual(4);
    expect(new Set(lines.map(({ id }) => id)).size).toBe(lines.length);
    expect(liveFiles(files.slice(0, 3), 50).live.length).toBe(1);
  });
});
