/** docs/features.md claims nothing without a test of that name, or a picture. */
import { existsSync, readFileSync, readdirSync, statSync } from "node:fs";
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

/** What our column says of a row, in bold: "yes", "no", a number. */
const claims = rows.map((row) => {
  const cell = row.replaceAll("\\|", "").split("|").at(8) ?? "";
  return { row: row.split("|")[1]?.trim() ?? "", cell, said: /^\s*\*\*([^*]+)\*\*/.exec(cell)?.[1] ?? "" };
});

/** These claim nothing that could be shown. */
const modest = new Set(["no", "not needed", "partly", "built for it"]);

/** The names of the tests in a file, those aside that never run. */
function titlesIn(file: string): readonly string[] {
  const source = readFileSync(inRoot(file), "utf8");
  if (file.endsWith(".cpp"))
    return [...source.matchAll(/\bTEST(?:_[FP])?\(\w+,\s*(\w+)\)/g)].map(([, name = ""]) => name);
  const named = /(?:\b(?:test|it|describe)((?:\.\w+)*)|\))\(\s*("(?:\\.|[^"\\])*"|`[^`]*`|'(?:\\.|[^'\\])*')/g;
  return [...source.matchAll(named)].flatMap(([, how = "", title = ""]) =>
    /skip$|todo|fails/.test(how) ? [] : [title.slice(1, -1).replaceAll(/\\(.)/g, "$1")],
  );
}

describe("the table of features", () => {
  test("has a cell for each peer and for us in each row", () => {
    expect(rows.length).toBeGreaterThan(40);
    for (const row of rows) expect([row, row.replaceAll("\\|", "").split("|").length]).toEqual([row, 10]);
  });

  test("shows whatever it claims by a test or a picture", () => {
    expect(claims.filter(({ said }) => said === "").map(({ row }) => row)).toEqual([]);
    const bare = claims.filter(
      ({ cell, said }) => !modest.has(said) && !/\]\([^)]*(\.test\.ts|_test\.cpp|\.png)\)/.test(cell),
    );
    expect(bare.map(({ row }) => row)).toEqual([]);
  });

  test("counts the settings", () => {
    const { contributes } = JSON.parse(readFileSync(inRoot("package.json"), "utf8")) as {
      contributes: { configuration: { properties: object } };
    };
    const said = claims.find(({ row }) => row === "Settings")?.said;
    expect(Number(said)).toBe(Object.keys(contributes.configuration.properties).length);
  });

  test.each(links.filter(({ file }) => isTest(file)))("$name is a test of $file", ({ name, file }) => {
    const titles = titlesIn(file);
    expect(titles.some((title) => title.includes(name))).toBe(true);
  });

  test.each(links.filter(({ file }) => !isTest(file)))("$file is there", ({ file }) => {
    expect(existsSync(inRoot(file))).toBe(true);
    if (file.endsWith(".png")) expect(statSync(inRoot(file)).size).toBeGreaterThan(10_000);
    else if (statSync(inRoot(file)).isDirectory()) expect(readdirSync(inRoot(file)).length).toBeGreaterThan(10);
  });
});
