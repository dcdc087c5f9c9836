/** docs/features.md claims nothing without a test of that name, or a picture. */
import { existsSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { inRoot } from "../../scripts/lib/paths.mjs";

const text = readFileSync(inRoot("docs/features.md"), "utf8");
const rows = text.split("\n").filter((line) => line.startsWith("| ") && !/^\| (Feature|---)/.test(line));
const links = [...text.matchAll(/\[([^\]]+)\]\(([^)]+)\)/g)].map(([, name = "", target = ""]) => ({
  name,
  file: path.join("docs", target),
}));

const isTest = (file: string): boolean => /(\.test\.ts|_test\.cpp)$/.test(file);

describe("the table of features", () => {
  test("has a cell for each peer and for us in each row", () => {
    expect(rows.length).toBeGreaterThan(40);
    for (const row of rows) expect([row, row.replaceAll("\\|", "").split("|").length]).toEqual([row, 10]);
  });

  test("links from each plain yes to a test or a picture", () => {
    const proven = /\]\(|needs|`nosa\.model`/;
    const bare = rows.filter((row) => /\*\*yes\*\*/.test(row) && !proven.test(row.split("|").slice(8).join("|")));
    expect(bare).toEqual([]);
  });

  test.each(links.filter(({ file }) => isTest(file)))("$name is a test of $file", ({ name, file }) => {
    const source = readFileSync(inRoot(file), "utf8");
    expect(source.includes(name)).toBe(true);
  });

  test.each(links.filter(({ file }) => !isTest(file)))("$file is there", ({ file }) => {
    expect(existsSync(inRoot(file))).toBe(true);
    if (file.endsWith(".png")) expect(statSync(inRoot(file)).size).toBeGreaterThan(10_000);
  });
});
