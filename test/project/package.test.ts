/** What is in the .vsix: everything that the extension needs, and nothing else. */
import { statSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { zipEntries } from "../../scripts/lib/zip.mjs";
import { vsixFile } from "../../scripts/package.mjs";

/** Built apart, and only where its compiler can be had. */
const cuda = "extension/dist/libnosa_cuda.so";
const entries = zipEntries(vsixFile);
const names = entries.map(({ name }) => name).filter((name) => name !== cuda);
const bytesOf = (name: string): number => entries.find((entry) => entry.name === name)?.bytes ?? 0;
const packedBytesOf = (name: string): number => entries.find((entry) => entry.name === name)?.packedBytes ?? 0;

describe("the packaged extension", () => {
  test("holds exactly these files", () => {
    const assets = /^extension\/(docs\/img|media\/icons|media\/walkthrough)\/[\w-]+\.(svg|png)$/;
    expect(names.filter((name) => !assets.test(name))).toEqual([
      "[Content_Types].xml",
      "extension.vsixmanifest",
      "extension/LICENSE.txt",
      "extension/changelog.md",
      "extension/dist/adapters/qwen2.5-coder-0.5b-instruct.safetensors",
      "extension/dist/adapters/qwen2.5-coder-1.5b-instruct.safetensors",
      "extension/dist/cli.js",
      "extension/dist/connection.js",
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

  test("stays under 15 MB without the CUDA part: models are fetched, never packaged", () =>
    expect(statSync(vsixFile).size - packedBytesOf(cuda)).toBeLessThan(15e6));

  test("has no bundle of 1 MB or more", () => {
    const bundles = entries.filter(({ name }) => /^extension\/dist\/.*\.(js|css)$/.test(name));
    expect(bundles.length).toBeGreaterThan(6);
    expect(bundles.filter(({ bytes }) => bytes >= 1e6)).toEqual([]);
  });
});
