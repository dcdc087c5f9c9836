// npm start [folder]: from a clean checkout to an open editor with the extension in it.
//
//   npm start                     opens a copy of the sample repository
//   npm start ~/code/project      opens that folder
//   npm start -- --no-open        prepares everything and stops
//   npm start -- --port 8080      serves the editor on that port
//   npm start -- --in-browser     uses the served editor although there is a local VS Code
import { cpSync, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { freePort, installExtension, installHost, prepareProfile, startHost } from "./lib/editorHost.mjs";
import { inRoot, userCache } from "./lib/paths.mjs";
import { prepareBundles, prepareModel, prepareVsix } from "./lib/prepare.mjs";
import { run, versionOf } from "./lib/run.mjs";
import { hashOfFile } from "./lib/stamp.mjs";
import { Advice, createSteps, printFailure, seconds } from "./lib/steps.mjs";

const sample = "parcel-desk";

/** For the served editor, which starts with a profile of its own. The reader may change them there. */
const firstSettings = {
  "workbench.startupEditor": "none",
  "telemetry.telemetryLevel": "off",
  "extensions.autoCheckUpdates": false,
  "extensions.autoUpdate": false,
};

async function main() {
  const startedMs = Date.now();
  const { options, folder } = readArguments();
  const steps = createSteps();
  steps.say("Nosa: preparing (what is there already is left alone)\n");
  await prepareBundles(steps);
  const vsix = await prepareVsix(steps);
  await prepareModel(steps);
  const workspace = folder ?? (await copySample(steps));
  const local = options["in-browser"] ? undefined : await localEditor();
  if (local === undefined)
    await steps.step("editor (code-server)", async () => ((await installHost()) ? "installed" : undefined));
  steps.say(`\nReady after ${seconds(startedMs)}.`);
  if (options["no-open"]) return;
  if (local !== undefined) await openLocally(local, vsix, workspace, steps);
  else await serve(vsix, workspace, options.port, steps);
}

function readArguments() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      "no-open": { type: "boolean", default: false },
      "in-browser": { type: "boolean", default: false },
      port: { type: "string" },
    },
  });
  if (positionals.length > 1) throw new Advice(`npm start takes one folder, not ${positionals.length}.`);
  if (
    values.port !== undefined &&
    !(/^\d+$/.test(values.port) && Number(values.port) > 0 && Number(values.port) < 65_536)
  ) {
    throw new Advice(`--port takes a number from 1 to 65535, not "${values.port}".`);
  }
  if (positionals[0] === undefined) return { options: values, folder: undefined };
  const folder = path.resolve(process.env.INIT_CWD ?? process.cwd(), positionals[0]);
  if (!existsSync(folder) || !statSync(folder).isDirectory()) throw new Advice(`There is no folder ${folder}.`);
  return { options: values, folder };
}

/** A working copy outside the checkout; one from an earlier start is kept with whatever was changed in it. */
async function copySample(steps) {
  const copy = userCache("samples", sample);
  await steps.step("sample repository", async () => {
    if (existsSync(copy)) return undefined;
    cpSync(inRoot("samples", sample), copy, { recursive: true });
    return "copied";
  });
  return copy;
}

/** The reader's own VS Code, if one can open a window from here. It refuses to run as root. */
async function localEditor() {
  if (process.getuid?.() === 0) return undefined;
  const hasDisplay =
    process.platform !== "linux" ||
    [process.env.DISPLAY, process.env.WAYLAND_DISPLAY, process.env.VSCODE_IPC_HOOK_CLI].some(
      (value) => value !== undefined && value !== "",
    );
  if (!hasDisplay) return undefined;
  return (await versionOf("code")) === undefined ? undefined : "code";
}

async function openLocally(editor, vsix, workspace, steps) {
  await steps.step("extension into VS Code", async () => {
    await run(editor, ["--install-extension", vsix, "--force"], { log: "install-extension" });
    return "installed";
  });
  await run(editor, [workspace]);
  steps.say(`VS Code opens ${workspace}.`);
}

async function serve(vsix, workspace, wantedPort, steps) {
  const profile = userCache("profile");
  prepareProfile(profile, firstSettings);
  await steps.step("extension into the editor", async () => {
    const hash = hashOfFile(vsix);
    const mark = path.join(profile, "installed-extension");
    if (existsSync(mark) && readFileSync(mark, "utf8") === hash) return undefined;
    await installExtension(profile, vsix);
    mkdirSync(profile, { recursive: true });
    writeFileSync(mark, hash);
    return "installed";
  });
  const port = wantedPort === undefined ? await freePort() : Number(wantedPort);
  const host = await startHost({ profile, folder: workspace, port });
  steps.say(`
  VS Code is at   ${host.address}
  It shows        ${workspace}
  Ctrl+C stops it.

  Then: F1, "Nosa: Index Repository"; ask @nosa in the Chat view (Ctrl+Alt+I), or in the Nosa view of the activity bar.`);
  await host.exited;
  throw new Error("The editor stopped by itself.");
}

try {
  await main();
} catch (error) {
  printFailure(error);
  process.exitCode = 1;
}
