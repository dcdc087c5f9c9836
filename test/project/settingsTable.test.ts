import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { inRoot } from "../../scripts/lib/paths.mjs";
import { withSettings } from "../../scripts/settings-docs.mjs";

const read = (name: string): string => readFileSync(inRoot(name), "utf8");

test("the README lists the settings as the manifest has them", () => {
  const readme = read("README.md");
  expect(withSettings(readme, JSON.parse(read("package.json")), JSON.parse(read("package.nls.json")))).toBe(readme);
});
