import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, expect, test } from "vitest";
import { changesOf } from "../../../bench/replay/changes.mjs";
import { addedBetweenFolders } from "../../../bench/replay/diff.mjs";
import { isWhole, lineOf } from "../../../bench/replay/written.mjs";

const scratch = mkdtempSync(path.join(tmpdir(), "nosa-changes-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const old = ["export function first(a) {", "  return doSomethingWith(a);", "}", ""].join("\n");
const added = [
  "export function first(a) {",
  // Indented anew, and so no new line.
  "    return doSomethingWith(a);",
  "}",
  "// A comment that is not worth hiding.",
  "const secondValue = first(12345);",
  "const thirdValue = first(secondValue);",
  "  const fourthValue = first(thirdValue);",
  "}",
  "const fifthValue = first(fourthValue);",
  "",
].join("\n");

function folder(name: string, text: string): string {
  const at = path.join(scratch, name);
  mkdirSync(path.join(at, "lib"), { recursive: true });
  writeFileSync(path.join(at, "lib/a.js"), text);
  return at;
}

test("hides new lines of code, each where it stood, and nothing that was only moved", () => {
  const [baseFolder, nextFolder] = [folder("base", old), folder("next", added)];
  const step = {
    ...{ name: "package", from: "1.0.0", to: "1.1.0", added: addedBetweenFolders(baseFolder, nextFolder) },
    base: [{ path: "lib/a.js", text: old }],
    next: [{ path: "lib/a.js", text: added }],
  };
  const changes = changesOf(step);
  expect(changes).toHaveLength(1);
  expect(changes[0]).toHaveLength(3);
  for (const { path: name, before, after, right, line } of changes[0] ?? []) {
    expect(name).toBe("lib/a.js");
    expect(right).toMatch(/^const \w+Value = first/);
    expect(before + right + after).toBe(added);
    expect(before.split("\n")).toHaveLength(line + 1);
  }
  // All of it was there: what git calls added was only moved.
  expect(changesOf({ ...step, base: step.next })).toEqual([]);
  expect(changesOf({ ...step, added: addedBetweenFolders(nextFolder, nextFolder) })).toEqual([]);
});

test("an answer is the first line with something on it", () => {
  expect(isWhole("\n  ")).toBe(false);
  expect(isWhole("\n  some")).toBe(false);
  expect(isWhole("\n  some\n")).toBe(true);
  expect(lineOf("\n  some \nmore")).toBe("some");
  expect(lineOf("\n \n")).toBe("");
});
