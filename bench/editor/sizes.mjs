// How large the package and its bundles are.
import { readdirSync, statSync } from "node:fs";
import path from "node:path";
import { inRoot } from "../../scripts/lib/paths.mjs";
import { zipEntries } from "../../scripts/lib/zip.mjs";

const megabyte = 1e6;

/** `{vsix, bundles: [{name, megabytes}]}` in 10^6 bytes: the package without the CUDA part, and every script in it. */
export function sizes(vsixFile) {
  const cuda = zipEntries(vsixFile).find(({ name }) => /libnosa_cuda|nosa_cuda\.dll/.test(name));
  const dist = inRoot("dist");
  const bundles = readdirSync(dist, { recursive: true })
    .filter((name) => name.endsWith(".js"))
    .map((name) => ({ name, megabytes: statSync(path.join(dist, name)).size / megabyte }))
    .sort((a, b) => b.megabytes - a.megabytes);
  return { vsix: (statSync(vsixFile).size - (cuda?.packedBytes ?? 0)) / megabyte, bundles };
}
