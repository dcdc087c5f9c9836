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

/** What one click or one list of the editor is given before it is tried again. */
export const tryMs = 5_000;

export interface UntilOptions {
  /** How long the effect may take to show before the same is done again; twice as long each time. */
  readonly eachMs?: number;
  readonly withinMs?: number;
}

/**
 * Acts until the effect is seen. A click on what is drawn anew at that moment is lost, and keys go astray when the focus
 * moves: a person looks, and does it again. `act` may fail, and must do no harm when it is done twice.
 */
export async function until(
  effect: () => Promise<boolean> | boolean,
  act: () => Promise<unknown>,
  { eachMs = 3_000, withinMs = 120_000 }: UntilOptions = {},
): Promise<void> {
  const deadline = Date.now() + withinMs;
  let cause: unknown;
  for (let tries = 1, patienceMs = eachMs; ; tries += 1, patienceMs *= 2) {
    if (await effect()) return;
    await act().catch((error: unknown) => (cause = error));
    const next = Math.min(deadline, Date.now() + patienceMs);
    do {
      if (await effect()) return;
      await new Promise((resolve) => setTimeout(resolve, lookEachMs));
    } while (Date.now() < next);
    if (Date.now() >= deadline)
      throw new Error(`It showed no effect, ${tries} times in ${withinMs / 1000} s.`, { cause });
  }
}

const lookEachMs = 50;

/** A menu listens to the mouse 100 ms after it is drawn, so that the click that opened it chooses nothing. */
const menuDeafMs = 200;

/** Pages of extensions, by where they are shown: nothing in the window says which is whose. */
const views = ":left-of(.part.editor)";
const panels = ":right-of(.part.sidebar)";

/** An effect: something can be seen. */
export function shown(what: Locator): () => Promise<boolean> {
  return () =>
    what
      .first()
      .isVisible()
      .catch(() => false);
}

/** An effect: it cannot be seen any more. */
export function gone(what: Locator): () => Promise<boolean> {
  return async () => !(await shown(what)());
}

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
    page.setDefaultTimeout(120_000);
    await page.goto(server.address);
    await page.locator(".monaco-workbench .statusbar").waitFor({ timeout: 240_000 });
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

  /** The same folder in another window of this editor, with an extension host of its own. The caller closes it. */
  async secondWindow(): Promise<Page> {
    const second = await this.page.context().newPage();
    await second.goto(this.page.url());
    return second;
  }

  /** Saves a picture of the whole window, numbered in the order of the story. */
  async shot(name: string): Promise<string> {
    this.#shots += 1;
    const file = path.join(this.#results, `${String(this.#shots).padStart(2, "0")}-${name}.png`);
    await this.page.screenshot({ path: file });
    return file;
  }

  /** Runs a command from the palette by its full title; with an effect, until that is seen. */
  async command(title: string, effect?: () => Promise<boolean> | boolean, options?: UntilOptions): Promise<void> {
    const run = (): Promise<void> => this.#pick("F1", `>${title}`, title);
    await (effect === undefined ? run() : until(effect, run, options));
  }

  /** Changes the colours, as the picker of themes does. */
  async theme(name: string): Promise<void> {
    const dark = name.includes("High Contrast") ? "hc-black" : "vs-dark";
    const light = name.includes("High Contrast") ? "hc-light" : "vs";
    const worn = this.page.locator(`.monaco-workbench.${name.includes("Dark") ? dark : light}`);
    const list = this.page.locator(".quick-input-widget:visible");
    const input = list.locator("input.input").first();
    const chosen = list.locator(".monaco-list-row.focused", { hasText: name });
    let taken = false;
    await until(
      async () => taken && (await shown(worn)()),
      async () => {
        await this.page.keyboard.press("Escape");
        await this.page.keyboard.press("F1");
        await input.fill(">Preferences: Color Theme", { timeout: tryMs });
        // A neighbour may come first, as the editor remembers what was used.
        const row = list.locator(".monaco-list-row", { hasText: /^Preferences: Color Theme/ });
        await row.first().click({ timeout: tryMs });
        await list.locator(".monaco-list-row", { hasText: "Modern" }).first().waitFor({ timeout: tryMs });
        await input.fill(name, { timeout: tryMs });
        await chosen.waitFor({ timeout: tryMs });
        await input.press("Enter", { timeout: tryMs });
        await list.waitFor({ state: "hidden", timeout: tryMs });
        taken = true;
      },
    );
  }

  /** Opens a file of the workspace and waits until typing goes into it. */
  async openFile(relative: string): Promise<Locator> {
    const ofFile = `.editor-instance .monaco-editor[data-uri$="/${relative}"]`;
    const editor = this.page.locator(ofFile).first();
    // Keys pressed before the editor has the focus would go astray.
    await until(shown(this.page.locator(`${ofFile}.focused`)), async () => {
      if (!(await shown(editor.locator(".view-line"))())) {
        await this.#pick("Control+P", relative, path.basename(relative));
        await editor.locator(".view-line").first().waitFor({ timeout: tryMs });
      }
      await editor.locator(".view-lines").click({ position: { x: 30, y: 8 }, timeout: tryMs });
    });
    return editor;
  }

  /** Puts the cursor into the first line with such text, in a file of the workspace. */
  async placeCursor(relative: string, text: string): Promise<void> {
    const editor = await this.openFile(relative);
    const line = editor.locator(".view-line", { hasText: text }).first();
    const here = async (): Promise<boolean> => {
      const [cursor, wanted] = await Promise.all([
        editor.locator(".cursors-layer .cursor").first().boundingBox({ timeout: tryMs }),
        line.boundingBox({ timeout: tryMs }),
      ]).catch(() => [null, null]);
      return cursor !== null && wanted !== null && Math.abs(cursor.y - wanted.y) < wanted.height / 2;
    };
    await until(here, () => line.click({ timeout: tryMs }));
  }

  /** Clicks until the effect is seen. */
  async click(what: Locator, effect: () => Promise<boolean> | boolean, options?: UntilOptions): Promise<void> {
    await until(effect, () => what.first().click({ timeout: tryMs }), options);
  }

  /** A button that a row shows under the pointer. Rows are drawn anew while they are looked at. */
  async clickInRow(row: Locator, button: string | RegExp, effect: () => Promise<boolean> | boolean): Promise<void> {
    await until(effect, async () => {
      await row.first().hover({ timeout: tryMs });
      await row.first().getByRole("button", { name: button }).first().click({ timeout: tryMs });
    });
  }

  /** An entry of a row's context menu. */
  async clickInMenu(row: Locator, entry: string, effect: () => Promise<boolean> | boolean): Promise<void> {
    const menu = this.page.locator(".monaco-menu:visible");
    await until(effect, async () => {
      if (await shown(menu)()) await this.page.keyboard.press("Escape");
      await row.first().click({ button: "right", timeout: tryMs });
      const action = menu.locator(".action-label", { hasText: entry }).first();
      await action.waitFor({ timeout: tryMs });
      await new Promise((resolve) => setTimeout(resolve, menuDeafMs));
      await action.click({ timeout: tryMs });
    });
  }

  /** Closes what lies over the window: lists, menus, dialogs, notifications. */
  async clear(): Promise<void> {
    const over = this.page.locator(".quick-input-widget:visible, .monaco-menu:visible, .monaco-dialog-box:visible");
    await until(gone(over), () => this.page.keyboard.press("Escape"));
    await this.clearNotifications();
  }

  async clearNotifications(): Promise<void> {
    const toasts = this.page.locator(".notification-toast:visible");
    await until(gone(toasts), () => this.command("Notifications: Clear All Notifications"));
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

  /** The document of our view in the side bar. */
  webview(): FrameLocator {
    return this.#page(views).contentFrame().frameLocator("iframe#active-frame");
  }

  /** The document of our panel among the editors. */
  panel(): FrameLocator {
    return this.#page(panels).contentFrame().frameLocator("iframe#active-frame");
  }

  /** Whether the panel is in front. What lies behind another editor counts as seen within its own page. */
  showsPanel(): Promise<boolean> {
    return shown(this.#page(panels))();
  }

  /** Only what can be seen: one that was closed stays in the window for a while. */
  #page(kind: string): Locator {
    return this.page.locator(`iframe.webview.ready${kind}:visible`).first();
  }

  /** Asks in the editor's own Chat view. Gives the answer's place, once the question stands there. */
  async chat(message: string): Promise<Locator> {
    // The view writes "@nosa" and "/docs" in its own way.
    const words = message.replace(/^@\w+ (\/\w+ )?/, "");
    const input = this.page.locator(".chat-input-container .monaco-editor").first();
    const typed = input.locator(".view-lines", { hasText: words.split(" ").at(-1) ?? "" });
    const question = this.page.locator(".interactive-request", { hasText: words });
    await until(
      shown(question),
      async () => {
        await input.click({ timeout: tryMs });
        await this.page.locator(".chat-input-container .monaco-editor.focused").first().waitFor({ timeout: tryMs });
        await this.page.keyboard.press("Control+A");
        await this.page.keyboard.type(message, { delay: 5 });
        await typed.waitFor({ timeout: tryMs });
        // Closes the list of participants, so that Enter sends.
        await this.page.keyboard.press("Escape");
        await this.page.keyboard.press("Enter");
      },
      { eachMs: 10_000 },
    );
    const row = this.page.locator(".monaco-list-row", { has: question }).last();
    const index = Number(await row.getAttribute("data-index"));
    const answer = this.page.locator(`.monaco-list-row[data-index="${index + 1}"] .interactive-response`);
    await answer.waitFor();
    return answer;
  }

  /** Waits until the whole of an answer in the editor's own Chat view is there. */
  async answered(answer: Locator, timeout: number): Promise<void> {
    const whole = answer.and(this.page.locator(".interactive-response:not(.chat-response-loading)"));
    await whole.waitFor({ timeout });
  }

  /** A file of the workspace as it is on disk. */
  readFile(relative: string): string {
    return readFileSync(path.join(this.workspace, relative), "utf8");
  }

  /** Has our log say everything from now on. */
  async logEverything(): Promise<void> {
    const list = this.page.locator(".quick-input-widget:visible");
    let taken = false;
    await until(
      () => taken,
      async () => {
        await this.command("Developer: Set Log Level...", shown(list));
        for (const text of ["Nosa", "Debug"]) {
          await list.locator("input.input").first().fill(text, { timeout: tryMs });
          await list.locator(".monaco-list-row.focused", { hasText: text }).first().waitFor({ timeout: tryMs });
          await this.page.keyboard.press("Enter");
        }
        await list.waitFor({ state: "hidden", timeout: tryMs });
        taken = true;
      },
    );
  }

  /** What our log says, in whole lines; that of the newest window. */
  log(): readonly string[] {
    const logs = filesBelow(path.join(this.home, "profile/data/logs")).filter((file) => file.endsWith("Nosa.log"));
    const newest = logs.toSorted().at(-1);
    return newest === undefined ? [] : readFileSync(newest, "utf8").split("\n").slice(0, -1);
  }

  /** Everything that may explain a failure: the logs of extension and server. */
  logs(): string {
    const logs = path.join(this.home, "profile/data/logs");
    const ours = filesBelow(logs).filter((file) => path.relative(logs, file).includes("nosa.nosa"));
    const parts = ours.map((file) => `--- ${path.relative(logs, file)}\n${readFileSync(file, "utf8").slice(-4_000)}`);
    return [...parts, `--- server\n${this.#serverOutput.join("").slice(-2_000)}`].join("\n");
  }

  /** Chooses from a list that a key opens. An editor that opens late takes the focus, and the list closes: then again. */
  async #pick(key: string, text: string, label: string): Promise<void> {
    const list = this.page.locator(".quick-input-widget:visible");
    const input = list.locator("input.input").first();
    let taken = false;
    await until(
      () => taken,
      async () => {
        if (await shown(input)()) await this.page.keyboard.press("Escape");
        await this.page.keyboard.press(key);
        await input.fill(text, { timeout: tryMs });
        await list.locator(".monaco-list-row.focused", { hasText: label }).first().waitFor({ timeout: tryMs });
        await input.press("Enter", { timeout: tryMs });
        taken = true;
      },
    );
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
