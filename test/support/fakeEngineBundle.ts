/** The scripted engine as one file, built later than any extension that finds it: so it is not asked to leave. */

import { build } from "esbuild";
import { inRoot } from "../../scripts/lib/paths.mjs";

export async function bundleFakeEngine(outfile: string): Promise<void> {
  await build({
    entryPoints: [inRoot("test/support/fakeEngineMain.ts")],
    outfile,
    bundle: true,
    platform: "node",
    format: "cjs",
    target: "node20",
    define: { __nosaBuild: String(Date.now()) },
  });
}
