// The small extension that lives beside the product in the extension host (probe/): packaging it, and talking to it.
import path from "node:path";
import { inRoot } from "../../scripts/lib/paths.mjs";
import { run } from "../../scripts/lib/run.mjs";

/** Packages the probe; resolves with its .vsix in `folder`. */
export async function packageProbe(folder) {
  const file = path.join(folder, "probe.vsix");
  const vsce = inRoot("node_modules/@vscode/vsce/vsce");
  const options = ["--no-dependencies", "--allow-missing-repository", "--skip-license", "--out", file];
  await run(process.execPath, [vsce, "package", ...options], { cwd: inRoot("bench/editor/probe"), log: "vsce-probe" });
  return file;
}

/** Asks the probe at `port` for one of its actions; see probe/extension.cjs. */
export async function ask(port, action, params = {}) {
  const response = await fetch(`http://127.0.0.1:${port}/${action}`, { method: "POST", body: JSON.stringify(params) });
  const text = await response.text();
  if (!response.ok) throw new Error(`The probe failed at ${action}: ${text}`);
  return JSON.parse(text);
}
