// The driver of the real editor that the end-to-end tests use, bundled for a program that is not a test.
import { build } from "esbuild";
import { mkdtempSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { inRoot } from "../../scripts/lib/paths.mjs";

/** Scripts and packages stay where they are: they look for things beside themselves. */
const leftInPlace = {
  name: "left in place",
  setup(bundler) {
    bundler.onResolve({ filter: /\.mjs$/ }, (wanted) => ({
      path: pathToFileURL(path.resolve(wanted.resolveDir, wanted.path)).href,
      external: true,
    }));
    bundler.onResolve({ filter: /^playwright-core$/ }, () => ({
      path: import.meta.resolve("playwright-core"),
      external: true,
    }));
  },
};

async function load() {
  const outfile = path.join(mkdtempSync(path.join(os.tmpdir(), "nosa-bench-harness-")), "harness.mjs");
  await build({
    entryPoints: [inRoot("test/e2e/harness.ts")],
    outfile,
    bundle: true,
    platform: "node",
    target: "node20",
    format: "esm",
    logLevel: "error",
    plugins: [leftInPlace],
  });
  return import(pathToFileURL(outfile).href);
}

export const { Editor, gone, shown, until } = await load();
