/** What is in the .vsix: everything that the extension needs, and nothing else. */
import { statSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { zipEntries } from "../../scripts/lib/zip.mjs";
import { vsixFile } from "../../scripts/package.mjs";

const entries = zipEntries(vsixFile);
const names = entries.map(({ name }) => name);
const bytesOf = (name: string): number => entries.find((entry) => entry.name === name)?.bytes ?? 0;

describe("the packaged extension", () => {
  test("holds exactly these files", () => {
    const assets = /^extension\/(docs\/img|media\/icons|media\/walkthrough)\/[\w-]+\.(svg|png)$/;
    expect(names.filter((name) => !assets.test(name))).toEqual([
      "[Content_Types].xml",
      "extension.vsixmanifest",
      "extension/LICENSE.txt",
      "extension/changelog.md",
      "extension/dist/adapters/qwen2.5-coder-0.5b-instruct.safetensors",
      "extension/dist/cli.js",
      "extension/dist/engine.js",
      "extension/dist/extension.js",
      "extension/dist/media/chat.css",
      "extension/dist/media/chat.js",
      "extension/dist/media/contextMap.css",
      "extension/dist/media/contextMap.js",
      "extension/dist/nosa.node",
      "extension/dist/tokenizerWorker.js",
      "extension/l10n/bundle.l10n.de.json",
      "extension/package.json",
      "extension/package.nls.de.json",
      "extension/package.nls.json",
      "extension/readme.md",
    ]);
    expect(names.filter((name) => assets.test(name)).length).toBeGreaterThan(1);
  });

  test("has the addon inside, whole", () => expect(bytesOf("extension/dist/nosa.node")).toBeGreaterThan(300_000));

  test("stays small: models are fetched, never packaged", () =>
    expect(statSync(vsixFile).size).toBeLessThan(15 * 2 ** 20));
});
