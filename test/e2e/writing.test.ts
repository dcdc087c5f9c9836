/**
 * What a person does while writing code: pins lines and sees them follow the text, compares, commits, and does it all by
 * keys alone, in a real VS Code with a scripted engine. What the engine was asked is read from its record.
 *
 * Pictures of each step are kept in test-results/writing/.
 */
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { Locator } from "playwright-core";
import { beforeAll, describe, expect, test } from "vitest";
import type { Place } from "../../engine/protocol";
import { gone, shown, tryMs, until, type Editor } from "./harness";
import { busyMs, commit, Scene } from "./scene";

const scene = new Scene("writing");
const workspace = scene.copyOf("parcel-desk");
const changed = "src/config.ts";
let editor: Editor;

beforeAll(async () => {
  commit(workspace);
  editor = await scene.open({ workspace, settings: { "git.enabled": true }, stepMs: 20 });
});

describe.sequential("while code is written", () => {
  test("keys alone have the repository read, ask, open a source and pin a file", async () => {
    const { keyboard } = editor.page;
    const isRead = shown(editor.statusBarItem(/Nosa: .*k tokens/));
    await editor.command("Nosa: Index Repository", isRead, { eachMs: 20_000 });
    await editor.clearNotifications();
    await editor.command("Nosa: Ask Nosa", () => isFocused("textarea"));
    const answer = await scene.askedBy(async () => {
      await keyboard.press("Control+A");
      await keyboard.type("Where do parcels go?", { delay: 5 });
      await keyboard.press("Enter");
    });
    await scene.whole(answer);
    await until(
      () => isFocused(".reference"),
      async () => {
        await editor.command("Nosa: Ask Nosa", () => isFocused("textarea"));
        // What was answered stands before the box.
        for (let presses = 0; presses < 40 && !(await isFocused(".reference")); presses += 1) {
          await keyboard.press("Shift+Tab");
        }
      },
    );
    await editor.shot("reference-focused");
    const label = await editor.webview().locator(".reference:focus .reference-label").innerText();
    const opened = editor.page.locator(
      `.editor-instance .monaco-editor[data-uri$="/${label.replace(/:[\d-–]+$/, "")}"]`,
    );
    await until(shown(opened), async () => {
      if (await isFocused(".reference")) await keyboard.press("Enter");
    });

    const tree = await focusedTree();
    const row = tree.filter({ hasText: "README.md" });
    const isOnRow = shown(row.and(editor.page.locator(".focused")));
    await until(isOnRow, async () => {
      await focusedTree();
      await keyboard.press("End");
      for (let presses = 0; presses < 12 && !(await isOnRow()); presses += 1) await keyboard.press("ArrowUp");
    });
    const menu = editor.page.locator(".monaco-menu:visible");
    const entry = menu.locator(".action-item.focused", { hasText: "Pin in Context" });
    await until(
      () => pins().some((pin) => pin.path === "README.md"),
      async () => {
        if (!(await shown(menu)())) await keyboard.press("Shift+F10");
        await menu.first().waitFor({ timeout: tryMs });
        for (let presses = 0; presses < 12 && !(await shown(entry)()); presses += 1) await keyboard.press("ArrowDown");
        await keyboard.press("Enter");
      },
    );
    await row
      .filter({ hasText: /pinned/ })
      .first()
      .waitFor();
  });

  test("selected lines are pinned, follow the text, are seen in the tree, and are unpinned there", async () => {
    await scene.read();
    await editor.placeCursor("src/fees.ts", "export function formatCents");
    const first = lineOf("export function formatCents");
    await editor.page.keyboard.press("Home");
    for (let line = 0; line < 3; line += 1) await editor.page.keyboard.press("Shift+ArrowDown");
    const isPinned = (startLine: number): boolean =>
      pins().some((pin) => pin.path === "src/fees.ts" && pin.startLine === startLine && pin.endLine === startLine + 2);
    await editor.command("Nosa: Pin Lines in Context", () => isPinned(first));
    await editor.page.keyboard.press("Control+Home");
    await editor.page.keyboard.press("Enter");
    await expect.poll(() => isPinned(first + 1)).toBe(true);
    await editor.page.keyboard.press("Control+Z");
    await expect.poll(() => isPinned(first)).toBe(true);
    await scene.whole(await scene.ask("What is pinned?"));
    expect(scene.lastChat().pins).toContainEqual({ path: "src/fees.ts", startLine: first, endLine: first + 2 });

    await editor.command("View: Close All Editors");
    const tree = await scene.treeAlone();
    const file = tree.filter({ hasText: "fees.ts" });
    await until(shown(file), () => tree.filter({ hasText: /^src/ }).first().click({ timeout: tryMs }));
    const lines = tree.filter({ hasText: `lines ${first}-${first + 2}` });
    await lines.first().waitFor();
    const opened = editor.page.locator('.editor-instance .monaco-editor[data-uri$="/src/fees.ts"]');
    await editor.click(lines, shown(opened));
    await editor.shot("pinned-lines");
    await editor.clickInRow(lines, "Unpin", () => pins().every((pin) => pin.path !== "src/fees.ts"));
    await expect.poll(shown(lines)).toBe(false);
  });

  test("no ghost text comes in a difference, and it comes in the same file beside it", async () => {
    await editor.openFile(changed);
    const end = editor.readFile(changed).split("\n").length;
    const difference = editor.page.locator(".editor.modified");
    await editor.command("File: Compare Active File with Saved", shown(difference));
    const focused = editor.page.locator(".editor.modified .monaco-editor.focused");
    await until(shown(focused), () => difference.locator(".view-lines").first().click({ timeout: tryMs }));
    await editor.page.keyboard.press("Control+End");
    await editor.page.keyboard.type("\nfunction first(): string {\n  return", { delay: 30 });
    await difference.locator(".view-line", { hasText: "function first" }).first().waitFor();
    // What is typed later, in the file alone, is answered: so is all that was asked for before.
    const alone = editor.page.locator(".tab").filter({ hasText: "config.ts", hasNotText: "↔" });
    await editor.click(alone, gone(difference));
    await editor.openFile(changed);
    await editor.page.keyboard.press("Control+End");
    await editor.page.keyboard.type("\n}\nfunction second(): string {\n  return", { delay: 30 });
    await editor.ghostText().first().waitFor();
    const asked = scene.requests("textDocument/inlineCompletion").map(({ params }) => params as LineParams);
    const ofFile = asked.filter(({ textDocument }) => textDocument.uri.endsWith(changed));
    const lines = new Set(ofFile.map(({ position }) => position.line + 1));
    expect(lines).toContain(end + 5);
    expect([end + 1, end + 2].filter((line) => lines.has(line))).toEqual([]);
    await editor.command("File: Revert File");
  });

  test("an offer is taken word by word, and the rest of it at once", async () => {
    await scene.read();
    await editor.openFile("src/desk.ts");
    const before = editor.readFile("src/desk.ts");
    const typed = "\nfunction third(): string {\n  return";
    await editor.page.keyboard.press("Control+End");
    await editor.page.keyboard.type(typed, { delay: 30 });
    // Blanks of the editor are no-break spaces.
    const grey = async (): Promise<string> =>
      (await editor.ghostText().allInnerTexts()).join("").replaceAll("\u00a0", " ").trim();
    await expect.poll(grey).toBe("this.items.get(key) ?? fallback;");
    // What a key takes is a word, with what stands before or behind it: the editor decides.
    for (const word of ["this", "items"]) {
      await until(
        async () => /^\W*\w+/.test(await grey()) && !(await grey()).includes(word),
        () => editor.page.keyboard.press("Control+ArrowRight"),
      );
    }
    await editor.shot("word");
    await editor.page.keyboard.press("Tab");
    const whole = `${before}${typed} this.items.get(key) ?? fallback;`;
    await until(
      () => editor.readFile("src/desk.ts") === whole,
      () => editor.page.keyboard.press("Control+S"),
    );
  });

  test("who asks by name may choose among several offers", async () => {
    await scene.read();
    await editor.openFile("src/shelves.ts");
    await editor.page.keyboard.press("Control+End");
    await editor.page.keyboard.type("\nfunction fourth(): string {\n  return", { delay: 30 });
    const grey = async (): Promise<string> =>
      (await editor.ghostText().allInnerTexts()).join("").replaceAll("\u00a0", " ").trim();
    await expect.poll(grey).toBe("this.items.get(key) ?? fallback;");
    // Alternatives come with the next one that is asked for: nobody pays for what nobody looks at.
    await until(
      async () => (await grey()) === "this.items.get(key);",
      () => editor.page.keyboard.press("Alt+BracketRight"),
    );
    await editor.shot("alternative");
    await editor.command("File: Revert File");
  });

  test("typing is left alone while completions snooze, and in a language that is switched off", async () => {
    await scene.read();
    const { keyboard } = editor.page;
    const list = editor.page.locator(".quick-input-widget:visible");
    const minutes = list.locator(".monaco-list-row", { hasText: "15 minutes" });
    await leftAlone("src/rateLimit.ts", {
      off: async () => {
        await editor.command("Nosa: Snooze Completions", shown(minutes));
        await editor.click(minutes, gone(list));
      },
      on: () => editor.command("Nosa: Snooze Completions"),
    });
    const settings = path.join(editor.home, "profile/data/User/settings.json");
    const toggle = (isOff: boolean): Promise<void> =>
      editor.command(
        "Nosa: Toggle Completions in This Language",
        () => /"python": false/.test(readFileSync(settings, "utf8")) === isOff,
        { eachMs: 20_000 },
      );
    await leftAlone("tools/report.py", { off: () => toggle(true), on: () => toggle(false) });

    /** What is typed between `off` and `on` is asked of nobody; what is typed then is, and so would be all before it. */
    async function leftAlone(
      file: string,
      { off, on }: { readonly off: () => Promise<void>; readonly on: () => Promise<void> },
    ): Promise<void> {
      await editor.openFile(file);
      await off();
      await editor.openFile(file);
      await keyboard.press("Control+End");
      await keyboard.type("\nfirst = find", { delay: 30 });
      await editor.page
        .locator(".editor-instance .view-line", { hasText: /first.=.find/ })
        .first()
        .waitFor();
      await on();
      await editor.openFile(file);
      await keyboard.press("Control+End");
      await keyboard.type("\nsecond = find", { delay: 30 });
      await editor.ghostText().first().waitFor();
      const asked = scene.requests("textDocument/inlineCompletion").map(({ params }) => params as LineParams);
      const lines = asked
        .filter(({ textDocument }) => textDocument.uri.endsWith(file))
        .map(({ position }) => position.line);
      expect(new Set(lines)).toEqual(new Set([Math.max(...lines)]));
      await editor.command("File: Revert File");
    }
  });

  test("three steps lead a newcomer, with pictures and with buttons that do what they say", async () => {
    const steps = await walkthrough("Get started with Nosa");
    await expect
      .poll(() => steps.allInnerTexts())
      .toEqual(["Get a model", "Let it read the repository", "Ask, and type"]);
    await editor.shot("walkthrough");
    const ask = editor.page.locator(".gettingStartedContainer").getByRole("button", { name: "Ask Nosa" });
    await editor.click(steps.nth(2), shown(ask));
    await editor.shot("walkthrough-ask");
    await editor.click(ask, () => isFocused("textarea"));
    await editor.command("View: Close All Editors");
  });

  test("the message of a commit is written into the box above the changes", async () => {
    await scene.read();
    const line = "// Asked to be committed.";
    writeFileSync(path.join(workspace, changed), `${editor.readFile(changed)}${line}\n`);
    const box = editor.page.locator(".scm-view .scm-editor .view-lines");
    // Its badge with the number of changes lies over the icon.
    const icon = editor.page.locator('a[aria-label^="Source Control"]');
    await editor.click(editor.page.locator(".activitybar .action-item", { has: icon }), shown(box));
    await editor.page.locator(".scm-view .monaco-list-row", { hasText: "config.ts" }).first().waitFor();
    const write = editor.page.getByRole("button", { name: "Write Commit Message" });
    const message = box.filter({ hasText: words("Ask for a review of the settings") });
    await editor.click(write, shown(message), { eachMs: 20_000 });
    await expect.poll(() => box.first().innerText()).toMatch(/Nobody.had.looked.at.them\./);
    expect(await box.first().innerText()).not.toContain("```");
    const { messages, pins: sent, root } = scene.lastChat();
    expect(root).toBe(workspace);
    expect(messages.at(-1)?.content).toContain(`+${line}`);
    expect(messages.at(-1)?.content).toContain(`change to ${changed}`);
    expect(sent).toContainEqual({ path: changed, startLine: 0, endLine: 0 });
  });

  test("who reads German is spoken to in German, the walkthrough and the engine's complaints included", async () => {
    const { page } = editor;
    // What a language pack of the editor sets for its window. The editor's own words stay English without one.
    await page.context().addInitScript(() => Object.assign(globalThis, { _VSCODE_NLS_LANGUAGE: "de" }));
    await page.reload();
    const item = editor.statusBarItem(/Nosa: .*k Tokens/);
    await item.waitFor({ timeout: busyMs });
    await editor.command("Nosa: Nosa fragen", shown(scene.box));
    expect(await scene.box.getAttribute("placeholder")).toBe("Frage zum Repository");
    const view = editor.webview();
    expect(await view.locator("html").getAttribute("lang")).toBe("de");
    await editor.click(item, shown(page.getByPlaceholder("Was möchtest du tun?")));
    await editor.shot("german-menu");
    await page.keyboard.press("Escape");
    const steps = await walkthrough("Erste Schritte mit Nosa");
    await expect.poll(() => steps.first().innerText()).toBe("Hole ein Modell");
    await editor.shot("german-walkthrough");
    await editor.command("View: Close All Editors");
    await forget("Nosa: Repository vergessen", "Vergessen");
    await editor.statusBarItem(/Nosa: .*nichts gelesen/).waitFor();
    await editor.clearNotifications();
    const answers = view.locator(".turn-assistant.is-failed");
    await until(shown(answers.filter({ hasText: "Nosa hat dieses Repository noch nicht gelesen." })), async () => {
      await scene.box.fill("Wo wird entschieden?", { timeout: tryMs });
      await scene.box.press("Enter");
    });
  });
});

interface LineParams {
  readonly textDocument: { readonly uri: string };
  readonly position: { readonly line: number };
}

/** What the engine was told last. */
function pins(): readonly Place[] {
  return (scene.requests("nosa/pins").at(-1)?.params as { pins: readonly Place[] } | undefined)?.pins ?? [];
}

/** From 1, on disk. */
function lineOf(text: string): number {
  return (
    editor
      .readFile("src/fees.ts")
      .split("\n")
      .findIndex((line) => line.includes(text)) + 1
  );
}

/** Whether the keys go to such an element of our view. */
function isFocused(selector: string): Promise<boolean> {
  const hasFocus = (body: HTMLElement, wanted: string): boolean =>
    body.ownerDocument.hasFocus() && body.ownerDocument.activeElement?.matches(wanted) === true;
  const body = editor.webview().locator("body");
  return body.evaluate(hasFocus, selector, { timeout: tryMs }).catch(() => false);
}

/** By the command, and by the button that agrees, in whatever language. */
async function forget(command: string, agree: string): Promise<void> {
  const dialog = editor.page.locator(".monaco-dialog-box");
  await editor.command(command, shown(dialog));
  await editor.click(dialog.getByRole("button", { name: agree }), gone(dialog));
}

/** Opens a walkthrough by its title. Gives the titles of its steps. */
async function walkthrough(title: string): Promise<Locator> {
  const steps = editor.page.locator(".gettingStartedContainer .step-title");
  const list = editor.page.locator(".quick-input-widget:visible");
  await editor.command("Welcome: Open Walkthrough...", shown(list));
  await until(shown(steps), async () => {
    if (!(await shown(list)())) await editor.command("Welcome: Open Walkthrough...", shown(list));
    await list.locator("input.input").first().fill(title, { timeout: tryMs });
    await list.locator(".monaco-list-row", { hasText: title }).first().click({ timeout: tryMs });
  });
  return steps;
}

/** Rows of the context's tree, which the keys go to. */
async function focusedTree(): Promise<Locator> {
  const { page } = editor;
  const pane = page.locator(".pane", { has: page.getByRole("button", { name: "Context Section" }) });
  await editor.command("Nosa: Focus on Context View", shown(pane.locator(".monaco-list:focus")));
  return pane.locator(".monaco-list-row");
}

/** Blanks of the editor are no-break spaces. */
function words(text: string): RegExp {
  return new RegExp(text.replaceAll(" ", "."));
}
