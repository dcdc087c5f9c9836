import { describe, expect, it } from "vitest";
import { windows } from "../../../eval/tasks.mjs";

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
    const paths = found.flatMap(({ files: own, live }) => [...own, live].map(({ path }) => path));
    expect(new Set(paths).size).toBe(paths.length);
    expect(paths).not.toContain("tests/test_shop.py");
  });

  it("leaves the live file out, and asks nothing whose answer stands there", () => {
    for (const { files: own, live, lookups } of found) {
      expect(own).not.toContainEqual(live);
      expect(lookups.length).toBe(6);
      for (const { path } of lookups) expect(own.map((file: { readonly path: string }) => file.path)).toContain(path);
    }
  });

  it("hides lines that use what another file defines and the text around does not show", () => {
    for (const { live, lines } of found) {
      for (const { prefix, suffix, line, name } of lines) {
        expect(line).toContain(name);
        expect(prefix).not.toContain(name);
        expect(suffix).not.toContain(name);
        expect(live.text).toContain(`${line}${suffix.slice(0, 40)}`);
        expect(live.text).toContain(`${prefix.slice(-40)}${line}`);
      }
    }
    expect(found.some(({ lines }) => lines.length > 0)).toBe(true);
  });
});
