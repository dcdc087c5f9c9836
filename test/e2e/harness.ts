/**
 * Drives a real VS Code in a real browser, as a person would: keys, clicks and what can be seen.
 *
 * Selectors are VS Code's own, so they belong to the version that scripts/lib/editorHost.mjs pins.
 */
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { type Browser, chromium, type FrameLocator, type Locator, type Page } from "playwright-core";
import { freePort, installExtension, installHost, prepareProfile, startHost } from "../../scripts/lib/editorHost.mjs";
import { findChromium } from "../../scripts/lib/chromium.mjs";
import { inRoot } from "../../scripts/lib/paths.mjs";

/** How long a list of the editor may take to show what was typed. */
const pickMs = 10_000;

/** Settings that keep the editor still: nothing moves on its own while a test looks. */
const quietSettings = {
  "workbench.startupEditor": "none",
  "files.autoSave": "off",
  "telemetry.telemetryLevel": "off",
  "extensions.autoUpdate": false,
  "extensions.autoCheckUpdates": false,
  "workbench.enableExperiments": false,
  "git.enabled": false,
  "chat.tips.enabled": false,
  "editor.autoClosingBrackets": "never",
  "editor.autoClosingComments": "never",
  "editor.autoIndent": "none",
  "editor.quickSuggestions": { other: "off", comments: "off", strings: "off" },
  "editor.minimap.enabled": false,
  "editor.cursorBlinking": "solid",
};

export interface EditorOptions {
  /** The packaged extension, or undefined for a bare editor. */
  readonly vsix: string | undefined;
  /** Packages of other extensions, installed beside. */
  readonly others?: readonly string[];
  /** Whether the editor asks about trust; else it trusts. */
  readonly asksForTrust?: boolean;
  /** Takes the place of the extension's engine, to say what a test wants said. */
  readonly engineFile?: string;
  /** Folder to open. It is used as it is: hand in a copy. */
  readonly workspace: string;
  /** Names the folder of screenshots, logs and the like under test-results/. */
  readonly story: string;
  /** User settings beside the quiet ones. */
  readonly settings?: Readonly<Record<string, unknown>>;
  /** Environment of the server, and so of the extension host and the engine. */
  readonly env?: Readonly<Record<string, string>>;
}

/** Owns one server, one browser and one page; `close` ends them all. */
export class Editor {
  readonly page: Page;
  readonly workspace: string;
  /** Scratch folder of this run; also HOME of the server. */
  readonly home: string;
  readonly #browser: Browser;
  readonly #stopServer: () => void;
  readonly #results: string;
  readonly #serverOutput: string[];
  #shots = 0;

  private constructor(parts: {
    page: Page;
    workspace: string;
    home: string;
    browser: Browser;
    stopServer: () => void;
    results: string;
    serverOutput: string[];
  }) {
    this.page = parts.page;
    this.workspace = parts.workspace;
    this.home = parts.home;
    this.#browser = parts.browser;
    this.#stopServer = parts.stopServer;
    this.#results = parts.results;
    this.#serverOutput = parts.serverOutput;
  }

  static async open(options: EditorOptions): Promise<Editor> {
    await installHost();
    const home = mkdtempSync(path.join(tmpdir(), "nosa-e2e-"));
    const profile = path.join(home, "profile");
    prepareProfile(profile, { ...quietSettings, ...options.settings });
    writeMachineSettings(profile, options.settings ?? {});
    if (options.vsix !== undefined) await installExtension(profile, options.vsix);
    for (const other of options.others ?? []) await installExtension(profile, other);
    if (options.engineFile !== undefined) replaceEngine(profile, options.engineFile);
    const results = inRoot("test-results", options.story);
    rmSync(results, { recursive: true, force: true });
    mkdirSync(results, { recursive: true });
    const serverOutput: string[] = [];
    const server = await startHost({
      profile,
      folder: options.workspace,
      port: await freePort(),
      asksForTrust: options.asksForTrust ?? false,
      env: { ...ownHome(home), ...options.env },
      // Without this a closed page would keep its extension host for three hours.
      extraArguments: ["--reconnection-grace-time", "1"],
      onOutput: (text: string) => serverOutput.push(text),
    });
    const browser = await chromium.launch({
      executablePath: await findChromium(),
      args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"].concat([
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
      ]),
    });
    const context = await browser.newContext({ viewport: { width: 1440, height: 900 } });
    // Nothing but this machine: no gallery, no telemetry.
    await context.route(
      (url) => url.protocol.startsWith("http") && url.hostname !== "127.0.0.1",
      (route) => route.abort(),
    );
    const page = await context.newPage();
    page.setDefaultTimeout(30_000);
    await page.goto(server.address);
    await page.locator(".monaco-workbench .statusbar").waitFor({ timeout: 90_000 });
    return new Editor({
      page,
      workspace: options.workspace,
      home,
      browser,
      stopServer: server.stop,
      results,
      serverOutput,
    });
  }

  /** Twice is fine. */
  async close(): Promise<void> {
    await this.#browser.close().catch(() => undefined);
    this.#stopServer();
    // The server's children still write for a moment.
    await new Promise((resolve) => setTimeout(resolve, 500));
    rmSync(this.home, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  }

  /** Saves a picture of the whole window, numbered in the order of the story. */
  async shot(name: string): Promise<string> {
    this.#shots += 1;
    const file = path.join(this.#results, `${String(this.#shots).padStart(2, "0")}-${name}.png`);
    await this.page.screenshot({ path: file });
    return file;
  }

  /** Runs a command from the palette by its full title. */
  async command(title: string): Promise<void> {
    await this.#pick("F1", `>${title}`, title);
    await this.page.keyboard.press("Enter");
  }

  /** Changes the colours, as the picker of themes does. */
  async theme(name: string): Promise<void> {
    const list = this.page.locator(".quick-input-widget:visible");
    await this.page.keyboard.press("F1");
    await list.locator("input.input").fill(">Preferences: Color Theme");
    // A neighbour may come first, as the editor remembers what was used.
    const row = list.locator(".monaco-list-row", { hasText: /^Preferences: Color Theme/ });
    await row.first().click();
    await list.locator(".monaco-list-row", { hasText: "Modern" }).first().waitFor();
    await list.locator("input.input").fill(name);
    await list.locator(".monaco-list-row.focused", { hasText: name }).waitFor();
    await this.page.keyboard.press("Enter");
    const dark = name.includes("High Contrast") ? "hc-black" : "vs-dark";
    const light = name.includes("High Contrast") ? "hc-light" : "vs";
    await this.page.locator(`.monaco-workbench.${name.includes("Dark") ? dark : light}`).waitFor();
  }

  /** Opens a file of the workspace and waits until typing goes into it. */
  async openFile(relative: string): Promise<Locator> {
    const name = path.basename(relative);
    await this.#pick("Control+P", relative, name);
    await this.page.keyboard.press("Enter");
    const editor = this.page.locator(`.editor-instance .monaco-editor[data-uri$="/${relative}"]`).first();
    await editor.locator(".view-line").first().waitFor();
    await editor.locator(".view-lines").click({ position: { x: 30, y: 8 } });
    // Keys pressed before the editor has the focus would go astray.
    await this.page.locator(`.editor-instance .monaco-editor.focused[data-uri$="/${relative}"]`).first().waitFor();
    return editor;
  }

  /** Grey text offered at the cursor. */
  ghostText(): Locator {
    return this.page.locator(
      ".editor-instance .ghost-text-decoration, .editor-instance .ghost-text-decoration-preview, .editor-instance .ghost-text",
    );
  }

  statusBarItem(text: string | RegExp): Locator {
    return this.page.locator(".statusbar .statusbar-item", { hasText: text });
  }

  notification(text: string | RegExp): Locator {
    return this.page.locator(".notification-toast", { hasText: text });
  }

  /** The document of the first webview that is shown. */
  webview(): FrameLocator {
    return this.page.frameLocator("iframe.webview.ready").first().frameLocator("iframe#active-frame");
  }

  /** Types a message into the editor's own Chat view and sends it. */
  async chat(message: string): Promise<void> {
    const input = this.page.locator(".chat-input-container .monaco-editor").first();
    await input.click();
    await this.page.locator(".chat-input-container .monaco-editor.focused").first().waitFor();
    await this.page.keyboard.press("Control+A");
    await this.page.keyboard.type(message, { delay: 5 });
    // Closes the list of participants, so that Enter sends.
    await this.page.keyboard.press("Escape");
    await this.page.keyboard.press("Enter");
  }

  chatAnswer(): Locator {
    return this.page.locator(".interactive-response").last();
  }

  /** A file of the workspace as it is on disk. */
  readFile(relative: string): string {
    return readFileSync(path.join(this.workspace, relative), "utf8");
  }

  /** Everything that may explain a failure: the logs of extension and server. */
  logs(): string {
    const logs = path.join(this.home, "profile/data/logs");
    const ours = filesBelow(logs).filter((file) => path.relative(logs, file).includes("nosa.nosa"));
    const parts = ours.map((file) => `--- ${path.relative(logs, file)}\n${readFileSync(file, "utf8").slice(-4_000)}`);
    return [...parts, `--- server\n${this.#serverOutput.join("").slice(-2_000)}`].join("\n");
  }

  async #pick(key: string, text: string, label: string): Promise<void> {
    const widget = this.page.locator(".quick-input-widget:visible");
    const input = widget.locator("input.input").first();
    // An editor that opens late takes the focus, and the list closes: a person presses the key again.
    for (let triesLeft = 3; ; triesLeft -= 1) {
      try {
        await this.page.keyboard.press(key);
        await input.fill(text, { timeout: pickMs });
        await widget.locator(".monaco-list-row.focused", { hasText: label }).first().waitFor({ timeout: pickMs });
        return;
      } catch (error) {
        if (triesLeft === 0) throw error;
        await this.page.keyboard.press("Escape");
      }
    }
  }
}

function replaceEngine(profile: string, engineFile: string): void {
  const extensions = path.join(profile, "extensions");
  const installed = readdirSync(extensions).find((name) => name.startsWith("nosa.nosa-"));
  if (installed === undefined) throw new Error(`The extension is not in ${extensions}.`);
  copyFileSync(engineFile, path.join(extensions, installed, "dist/engine.js"));
}

/** Whatever looks for a place of its own finds it in the scratch folder. */
function ownHome(home: string): Record<string, string> {
  return {
    HOME: home,
    XDG_CONFIG_HOME: path.join(home, ".config"),
    XDG_DATA_HOME: path.join(home, ".local/share"),
    XDG_STATE_HOME: path.join(home, ".local/state"),
    XDG_CACHE_HOME: path.join(home, ".cache"),
  };
}

/** To the browser this is a remote machine, and settings of machine scope count there only. */
function writeMachineSettings(profile: string, settings: Readonly<Record<string, unknown>>): void {
  const folder = path.join(profile, "data/Machine");
  mkdirSync(folder, { recursive: true });
  writeFileSync(path.join(folder, "settings.json"), JSON.stringify(settings));
}

function filesBelow(folder: string): string[] {
  try {
    return readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => path.join(entry.parentPath, entry.name));
  } catch {
    return [];
  }
}
