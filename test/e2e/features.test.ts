/**
 * What a person does beside asking: slash commands, attached files, code applied after a look, chats that are kept,
 * pins, the context map, budgets, the list of models, `#repo`, in a real VS Code with a scripted engine. What the engine
 * was asked is read from its record, what ended up in the workspace from disk.
 *
 * Pictures of each step are kept in test-results/features/.
 */
import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { Locator } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { readLock } from "../../engine/lockFile";
import { dataPaths } from "../../engine/paths";
import type { ChatParams, IndexParams } from "../../engine/protocol";
import { inRoot } from "../../scripts/lib/paths.mjs";
import { vsixFile } from "../../scripts/package.mjs";
import { bundleFakeEngine } from "../support/fakeEngineBundle";
import { Editor } from "./harness";

const sample = "parcel-desk";
const scratch = realpathSync(mkdtempSync(path.join(tmpdir(), "nosa-features-")));
const workspace = path.join(scratch, sample);
const engineHome = path.join(scratch, "engine");
const engineFile = path.join(scratch, "engine.js");
const record = path.join(scratch, "record.jsonl");

let editor: Editor;

beforeAll(async () => {
  cpSync(inRoot("samples", sample), workspace, { recursive: true });
  commit(workspace);
  mkdirSync(engineHome, { mode: 0o700 });
  writeFileSync(record, "");
  await bundleFakeEngine(engineFile);
  editor = await Editor.open({
    vsix: vsixFile,
    engineFile,
    workspace,
    story: "features",
    env: { NOSA_HOME: engineHome, NOSA_FAKE_STEP_MS: "25", NOSA_FAKE_RECORD: record },
  });
  await editor.statusBarItem(/Nosa: .*nothing read/).waitFor({ timeout: 90_000 });
});

afterAll(async () => {
  await editor.close();
  const lock = await readLock(dataPaths(engineHome).lock);
  if (lock !== undefined && lock.pid !== process.pid) process.kill(lock.pid);
  rmSync(scratch, { recursive: true, force: true });
});

afterEach(async ({ task }) => {
  const name = task.name.replaceAll(/\W+/g, "-").slice(0, 48);
  await editor.shot(task.result?.state === "fail" ? `failed-${name}` : name);
  if (task.result?.state === "fail") process.stderr.write(`${editor.logs()}\n`);
});

describe.sequential("beside asking", () => {
  test("indexing is paused and resumed by commands", async () => {
    await editor.command("Nosa: Index Repository");
    await editor
      .notification(/Reading parcel-desk/)
      .first()
      .waitFor();
    await editor.command("Nosa: Pause Indexing");
    await editor
      .notification(/Paused\. What was read of parcel-desk is kept/)
      .first()
      .waitFor();
    await editor.command("Nosa: Resume Indexing");
    await editor
      .notification(/Nosa has read parcel-desk/)
      .first()
      .waitFor();
    await editor.statusBarItem(/k tokens/).waitFor();
    await clearNotifications();
  });

  test("a slash is answered with the list of commands, which keys alone can use", async () => {
    await editor.command("Nosa: Ask Nosa");
    const box = questionBox();
    await box.click();
    await box.pressSequentially("/");
    await editor.webview().getByRole("option").nth(6).waitFor();
    await box.pressSequentially("im");
    await expect.poll(() => editor.webview().getByRole("option").count()).toBe(1);
    await editor.shot("slash-list");
    await box.press("Enter");
    expect(await box.inputValue()).toBe("/impact ");
    await box.fill("");
  });

  test("an attached file is pinned, not pasted, and is seen beside the question", async () => {
    const box = questionBox();
    await box.pressSequentially("#");
    const picker = editor.page.locator(".quick-input-widget:visible");
    await picker.locator("input.input").fill("fees.ts");
    await picker.locator(".monaco-list-row.focused", { hasText: "src/fees.ts" }).waitFor();
    await editor.page.keyboard.press("Enter");
    await editor.webview().locator(".composer .chip", { hasText: "src/fees.ts" }).waitFor();
    await ask("/explain");
    const { messages, pins } = lastChat();
    expect(pins).toContainEqual({ path: "src/fees.ts", startLine: 0, endLine: 0 });
    expect(messages.at(-1)?.content).toContain("Explain src/fees.ts");
    expect(messages.at(-1)?.content).not.toContain("storageFee");
    await editor.webview().locator(".turn-user .chip", { hasText: "src/fees.ts" }).waitFor();
  });

  test("the code under the cursor is documented: a look at the difference, then into the file, one undo away", async () => {
    const file = await editor.openFile("src/fees.ts");
    await file.locator(".view-line", { hasText: "padStart" }).click();
    await editor.command("Nosa: Write Documentation Comment");
    await answered();
    const { messages, pins } = lastChat();
    expect(pins).toContainEqual({ path: "src/fees.ts", startLine: 22, endLine: 24 });
    expect(messages.at(-1)?.content).toContain("`formatCents` in src/fees.ts");
    await editor.webview().getByRole("button", { name: "Preview the change" }).last().click();
    await editor.page.locator(".tab", { hasText: "change from Nosa" }).waitFor();
    await editor.page
      .locator(".diff-editor .line-insert, .editor.modified .view-line", { hasText: "whole units" })
      .first()
      .waitFor();
    await editor.shot("difference");
    expect(editor.readFile("src/fees.ts")).not.toContain("whole units");
    await editor.page
      .getByRole("button", { name: /^Apply Change/ })
      .first()
      .click();
    await editor.page.locator(".tab", { hasText: "change from Nosa" }).waitFor({ state: "detached" });
    await editor.page.keyboard.press("Control+S");
    await expect.poll(() => editor.readFile("src/fees.ts")).toContain("whole units stand before the point");
    const text = editor.readFile("src/fees.ts");
    expect(text.match(/function formatCents/g)).toHaveLength(1);
    expect(text).not.toContain('/** "3.75" for 375. */');
    expect(text).toContain("export function storageFee");
  });

  test("tests that are asked for become a file where the repository keeps its tests", async () => {
    const file = await editor.openFile("src/fees.ts");
    await file.locator(".view-line", { hasText: "padStart" }).click();
    await editor.command("Nosa: Write Tests");
    await answered();
    await editor.webview().getByRole("button", { name: "Preview the change" }).last().click();
    await editor.page.locator(".tab", { hasText: "new, from Nosa" }).waitFor();
    await editor.page
      .getByRole("button", { name: /^Apply Change/ })
      .first()
      .click();
    await expect.poll(() => existsSync(path.join(workspace, "test/fees.test.ts"))).toBe(true);
    expect(editor.readFile("test/fees.test.ts")).toContain("formatCents(375)");
    await editor.page
      .locator('.editor-instance .monaco-editor.focused[data-uri$="/test/fees.test.ts"]')
      .first()
      .waitFor();
  });

  test("the working diff is reviewed, with what it changes pinned", async () => {
    await editor.command("Nosa: Review Changes");
    await answered();
    const { messages, pins } = lastChat();
    expect(messages.at(-1)?.content).toContain("whole units stand before the point");
    expect(pins).toContainEqual({ path: "src/fees.ts", startLine: 0, endLine: 0 });
  });

  test("a question is asked differently in a chat of its own, and the old one is kept", async () => {
    const questions = editor.webview().locator(".turn-user");
    const before = await questions.count();
    await questions
      .nth(1)
      .getByRole("button", { name: /Ask differently/ })
      .click();
    await expect.poll(() => questions.count()).toBe(1);
    expect(await questionBox().inputValue()).toBe("/docs");
    await ask("And the other one?");
    const { messages } = lastChat();
    expect(messages.map(({ role }) => role)).toEqual(["user", "assistant", "user"]);
    await editor.command("Nosa: Show Chats");
    const rows = editor.page.locator(".quick-input-widget:visible .monaco-list-row");
    await expect.poll(() => rows.count()).toBe(3);
    await editor.shot("chats");
    await rows.nth(2).click();
    await expect.poll(() => questions.count()).toBe(before);
  });

  test("@nosa has the same commands, offers its code, and says what may be asked next", async () => {
    await editor.openFile("src/fees.ts");
    await editor.chat("@nosa /docs formatCents in src/fees.ts");
    const answer = editor.chatAnswer();
    await answer.getByText("Preview in fees.ts").waitFor();
    await answer.getByText("whole units stand before the point").waitFor();
    await answer.locator(".chat-inline-anchor-widget").first().waitFor();
    await editor.page.getByText("/explain README.md").first().waitFor();
    const { messages, pins } = lastChat();
    expect(messages.at(-1)?.content).toContain("Write the documentation comment");
    expect(pins).toContainEqual({ path: "src/fees.ts", startLine: 0, endLine: 0 });
  });

  test("files are pinned, excluded and read anew from the tree, and budgets stand above it", async () => {
    await editor.command("View: Close All Editors");
    await editor.command("Nosa: Focus on Context View");
    // The tree alone: it draws what can be seen, and no more.
    await editor.page.locator(".pane-header", { hasText: "Chat" }).first().click();
    const tree = editor.page.locator(".pane", { has: editor.page.getByRole("button", { name: "Context Section" }) });
    await tree.locator(".monaco-list-row", { hasText: "In memory" }).waitFor();
    await tree.locator(".monaco-list-row", { hasText: /61 MB of 2 GB/ }).waitFor();
    const readme = tree.locator(".monaco-list-row", { hasText: "README.md" });
    await readme.hover();
    await readme.getByRole("button", { name: "Pin in Context" }).click();
    await tree.locator(".monaco-list-row", { hasText: /README\.md.*pinned/ }).waitFor();
    await editor.shot("pinned");
    const folder = tree.locator(".monaco-list-row", { hasText: "tools" });
    await folder.click({ button: "right" });
    await editor.page.locator(".context-view .action-label", { hasText: "Read Anew" }).click();
    await expect.poll(() => lastIndex()?.reread).toEqual(["tools/"]);
    const excluded = (): boolean =>
      existsSync(path.join(workspace, ".vscode/settings.json")) &&
      editor.readFile(".vscode/settings.json").includes('"tools/**"');
    // Rows are drawn anew while they are read, and a click on an old one is lost.
    const exclude = async (): Promise<boolean> => {
      if (excluded()) return true;
      await folder.hover();
      const button = folder.getByRole("button", { name: "Exclude from Context" });
      await button.click({ timeout: 1_000 }).catch(() => undefined);
      return excluded();
    };
    await expect.poll(exclude, { timeout: 30_000, interval: 1_000 }).toBe(true);
    await editor.shot("excluded");
    await editor.page.locator(".pane-header", { hasText: "Chat" }).first().click();
    await ask("What is pinned?");
    expect(lastChat().pins).toContainEqual({ path: "README.md", startLine: 0, endLine: 0 });
  });

  test("the context map draws every file, lit by the last answer, and leads to the lines by keys alone", async () => {
    await editor.command("Nosa: Show Context Map");
    const map = page(".map");
    const files = map.locator(".file");
    await files.nth(10).waitFor();
    expect(await map.locator(".file.is-lit").count()).toBeGreaterThan(5);
    await expect.poll(() => page(".gauge").count()).toBe(3);
    await map.locator(".file[tabindex='0']").focus();
    await editor.page.keyboard.press("ArrowDown");
    await editor.page.keyboard.press("ArrowRight");
    await editor.shot("map");
    const label = (await map.locator(".file:focus").getAttribute("aria-label")) ?? "";
    const [file = ""] = label.split(" · ");
    expect(existsSync(path.join(workspace, file))).toBe(true);
    await editor.page.keyboard.press("Enter");
    await editor.page.locator(`.editor-instance .monaco-editor[data-uri$="/${file}"]`).first().waitFor();
  });

  test.each(["Dark Modern", "Light Modern", "Dark High Contrast", "Light High Contrast"])(
    "both pages can be read in %s",
    async (theme) => {
      await editor.theme(theme);
      await editor.command("Nosa: Show Context Map");
      await page(".map .file.is-lit").first().waitFor();
      for (const name of await page(".map .file.is-lit :is(.file-name, .file-share)").all()) {
        expect(await contrastOf(name)).toBeGreaterThan(4.5);
      }
      expect(await contrastOf(page(".map .file:not(.is-lit) .file-name").first())).toBeGreaterThan(4.5);
      expect(await contrastOf(editor.webview().locator(".turn-body p").last())).toBeGreaterThan(4.5);
      expect(await contrastOf(editor.webview().locator(".reference-label").last())).toBeGreaterThan(4.5);
      expect(await contrastOf(editor.webview().locator(".footnote").last())).toBeGreaterThan(4.5);
    },
  );

  test("a model's download is paused, goes on, and is deleted, in the list", async () => {
    await editor.command("Nosa: Select Model");
    const list = editor.page.locator(".quick-input-widget:visible");
    const large = list.locator(".monaco-list-row", { hasText: "1.5B" });
    await large.hover();
    await large.getByRole("button", { name: "Download, or go on with it" }).click();
    await list.locator(".monaco-list-row", { hasText: /1\.5B.*% · / }).waitFor();
    await editor.shot("downloading");
    await large.getByRole("button", { name: /^Pause/ }).click();
    await list.locator(".monaco-list-row", { hasText: /1\.5B.*paused, .* have arrived/ }).waitFor();
    await large.hover();
    await large.getByRole("button", { name: "Delete from this machine" }).click();
    await editor.page.locator(".monaco-dialog-box").getByRole("button", { name: "Delete" }).click();
    await editor
      .notification(/1\.5B is deleted; .* freed/)
      .first()
      .waitFor();
    await clearNotifications();
  });

  test("the self-test says what works, as a document", async () => {
    await editor.command("Nosa: Run Self-Test");
    await editor.page.locator(".view-line", { hasText: "Everything works." }).first().waitFor();
    await editor.page.locator(".view-line", { hasText: "The model answers" }).first().waitFor();
  });

  test("chats and pins outlive a reload of the window", async () => {
    const questions = editor.webview().locator(".turn-user");
    const before = await questions.allInnerTexts();
    expect(before.length).toBeGreaterThan(3);
    await editor.page.reload();
    await editor.statusBarItem(/Nosa: .*k tokens/).waitFor({ timeout: 60_000 });
    await editor.command("Nosa: Ask Nosa");
    await questions.first().waitFor();
    expect(await questions.allInnerTexts()).toEqual(before);
    await ask("Still there?");
    expect(lastChat().pins).toContainEqual({ path: "README.md", startLine: 0, endLine: 0 });
  });
});

/** A repository with one commit, as the working diff needs it. */
function commit(folder: string): void {
  const git = (...args: readonly string[]): void => void execFileSync("git", args, { cwd: folder });
  git("init", "--quiet");
  git("add", ".");
  git("-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "--quiet", "-m", "Begin");
}

function questionBox(): Locator {
  return editor.webview().getByRole("textbox");
}

/** Of the panel in the middle; our view in the side bar is another page. */
function page(selector: string): Locator {
  return editor.page
    .locator("iframe.webview.ready")
    .last()
    .contentFrame()
    .locator("iframe#active-frame")
    .contentFrame()
    .locator(selector);
}

/** Contrast of a text against what is painted behind it, as WCAG 2 defines it. */
function contrastOf(text: Locator): Promise<number> {
  return text.evaluate((element) => {
    type Colour = readonly [number, number, number, number];
    const parse = (value: string): Colour => {
      const numbers = (value.match(/[\d.]+/g) ?? []).map(Number);
      // "color(srgb 0.1 0.2 0.3 / 0.5)" counts from 0 to 1, "rgb(1 2 3)" to 255.
      const scale = value.startsWith("color") ? 255 : 1;
      const [r = 0, g = 0, b = 0, alpha = 1] = numbers;
      return [r * scale, g * scale, b * scale, alpha];
    };
    const over = (top: Colour, under: Colour): Colour => {
      const mix = (a: number, b: number): number => a * top[3] + b * (1 - top[3]);
      return [mix(top[0], under[0]), mix(top[1], under[1]), mix(top[2], under[2]), 1];
    };
    const behind = (from: Element | null): Colour => {
      if (from === null) return [255, 255, 255, 1];
      const before = getComputedStyle(from, "::before");
      const [r, g, b, alpha] = parse(before.backgroundColor);
      const light: Colour = before.content === "none" ? [0, 0, 0, 0] : [r, g, b, alpha * Number(before.opacity)];
      return over(light, over(parse(getComputedStyle(from).backgroundColor), behind(from.parentElement)));
    };
    const luminance = ([r, g, b]: Colour): number => {
      const linear = [r, g, b].map((value) => {
        const part = value / 255;
        return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
      });
      return 0.2126 * (linear[0] ?? 0) + 0.7152 * (linear[1] ?? 0) + 0.0722 * (linear[2] ?? 0);
    };
    const ground = behind(element);
    const [a, b] = [luminance(over(parse(getComputedStyle(element).color), ground)), luminance(ground)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  });
}

/** Asks in our own view, and waits for the whole answer. */
async function ask(question: string): Promise<void> {
  const box = questionBox();
  await box.fill(question);
  await box.press("Escape");
  await box.press("Enter");
  await answered();
}

async function answered(): Promise<void> {
  const chats = requests("nosa/chat").length;
  const last = editor.webview().locator(".turn-assistant").last();
  await editor.webview().locator(".turn-assistant.is-streaming").waitFor();
  await editor.webview().locator(".turn-assistant.is-streaming").waitFor({ state: "detached" });
  expect(await last.getAttribute("class")).not.toContain("is-failed");
  expect(requests("nosa/chat").length).toBeGreaterThanOrEqual(chats);
}

interface Recorded {
  readonly method: string;
  readonly params: unknown;
}

function requests(method: string): readonly Recorded[] {
  const lines = readFileSync(record, "utf8").split("\n");
  return lines
    .flatMap((line) => (line === "" ? [] : [JSON.parse(line) as Recorded]))
    .filter((each) => each.method === method);
}

function lastChat(): ChatParams {
  return requests("nosa/chat").at(-1)?.params as ChatParams;
}

function lastIndex(): IndexParams | undefined {
  return requests("nosa/index").at(-1)?.params as IndexParams | undefined;
}

async function clearNotifications(): Promise<void> {
  await editor.command("Notifications: Clear All Notifications");
  await editor.page.locator(".notification-toast").first().waitFor({ state: "detached" });
}
