// Takes the pictures of the README anew, in a real VS Code with the packaged extension and the default model, and every view of ours
// in four themes, light, dark and both of high contrast, for whoever looks whether they are fit to be seen.
//
//   node scripts/pictures.mjs            into test-results/pictures/
//   node scripts/pictures.mjs --keep     and those of the README into docs/img/
import { chmodSync, copyFileSync, cpSync, mkdtempSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { Editor, gone, shown, until } from "../bench/editor/harness.mjs";
import { cacheFolder } from "../bench/lib/cacheFolder.mjs";
import { modelsFolder } from "../bench/lib/product.mjs";
import { inRoot } from "./lib/paths.mjs";
import { prepareBundles, prepareVsix } from "./lib/prepare.mjs";
import { createSteps } from "./lib/steps.mjs";

const slowMs = 400_000;
const tryMs = 5_000;
const model = "qwen2.5-coder-0.5b-instruct";
const sample = "parcel-desk";
const question = "Which environment variable changes the port of the desk?";
/** Typed below a line of a file. What is offered, only another file says. */
const typed = {
  file: "src/api.ts",
  below: 'desk.free("large")',
  frame: '\n    case "POST /sweep": {\n    }',
  head: "\n      const { ",
  last: "reminded, ",
};

/** Functions to be documented, until an answer is a comment, alone or above that function: a small model's may be the same code again, or another's. */
const undocumented = [
  { file: "src/notifications.ts", line: "2 ** (failures", name: "retryDelayMs" },
  { file: "src/api.ts", line: "writeHead", name: "send" },
  { file: "src/journal.ts", line: "as Event", name: "parse" },
  { file: "src/fees.ts", line: "padStart", name: "formatCents" },
];

/** Each shows every view. The last is README's own. */
const themes = ["Light Modern", "Dark High Contrast", "Light High Contrast", "Dark Modern"];

const { values } = parseArgs({ options: { keep: { type: "boolean", default: false }, vsix: { type: "string" } } });
const scratch = realpathSync(mkdtempSync(path.join(tmpdir(), "nosa-pictures-")));
const workspace = path.join(scratch, sample);
const vsix = values.vsix ?? (await packaged());
cpSync(inRoot("samples", sample), workspace, { recursive: true });
// What was read is kept: a second look at the same views takes no minutes of reading.
const home = cacheFolder("pictures");
chmodSync(home, 0o700);
const editor = await Editor.open({
  vsix,
  workspace,
  story: "pictures",
  settings: {
    "nosa.model": model,
    "workbench.colorTheme": "Default Dark Modern",
    // Its box would lie over what is offered.
    "editor.parameterHints.enabled": false,
  },
  env: { NOSA_HOME: home, NOSA_MODELS_HOME: modelsFolder(), NOSA_IDLE_EXIT_MS: "2000" },
});
const { page } = editor;
// A README shows it at half the size: what is smaller stays readable.
await page.setViewportSize({ width: 1280, height: 800 });
try {
  await editor.statusBarItem(/Qwen.*(nothing read|k tokens)/).waitFor({ timeout: slowMs });
  const isRead = shown(editor.statusBarItem(/Qwen.*k tokens/));
  const begun = shown(editor.notification(/Reading/));
  await editor.command("Nosa: Index Repository", async () => (await begun()) || (await isRead()));
  await until(isRead, () => Promise.resolve(), { withinMs: slowMs });
  await editor.clearNotifications();
  await widen();
  await chat();
  await map();
  await completion();
  await change();
  for (const theme of themes) await inTheme(theme);
} catch (error) {
  await editor.shot("failed");
  process.stderr.write(`${editor.logs()}\n`);
  throw error;
} finally {
  await editor.close();
  rmSync(scratch, { recursive: true, force: true });
}

async function packaged() {
  const steps = createSteps({ quiet: true });
  await prepareBundles(steps);
  return prepareVsix(steps);
}

/** Makes room for the view at the left, and hides the one at the right. */
async function widen() {
  const other = page.locator(".part.auxiliarybar:visible");
  if (await shown(other)()) await editor.command("View: Toggle Secondary Side Bar Visibility", gone(other));
  await editor.command("Nosa: Ask Nosa", shown(box()));
  const sash = await page.locator(".monaco-sash.vertical:not(.disabled)").first().boundingBox();
  if (sash === null) throw new Error("There is no edge to drag.");
  await page.mouse.move(sash.x + 2, 400);
  await page.mouse.down();
  await page.mouse.move(sash.x + 130, 400, { steps: 5 });
  await page.mouse.up();
}

async function chat() {
  const answer = await ask(question);
  await answer.locator(".reference-label", { hasText: "config.ts" }).first().click();
  await page.locator(".editor-instance .monaco-editor .view-line").first().waitFor();
  await picture("chat");
}

async function map() {
  await editor.command("Nosa: Show Context Map", () => editor.showsPanel());
  await editor.panel().locator(".file.is-lit").first().waitFor();
  await picture("map");
}

async function change() {
  for (const { file, line, name } of undocumented) {
    await editor.command("View: Close All Editors");
    await editor.command("Nosa: New Chat", gone(editor.webview().locator(".turn")));
    await editor.openFile(file);
    await page.keyboard.press("Control+End");
    await editor.placeCursor(file, line);
    await page.locator(".monaco-breadcrumb-item", { hasText: name }).first().waitFor({ timeout: slowMs });
    const answer = await answered(() => editor.command("Nosa: Write Documentation Comment"));
    const [code = ""] = await answer.locator("pre").allInnerTexts();
    const below = code.slice(code.lastIndexOf("*/") + 2);
    if (code.startsWith("/**") && (below.trim() === "" || !code.includes("*/") || below.includes(name))) break;
  }
  const preview = editor.webview().getByRole("button", { name: "Preview the change" }).last();
  await editor.click(preview, shown(page.locator(".tab", { hasText: "change from Nosa" })));
  await picture("apply");
  for (const theme of themes) {
    await editor.theme(theme);
    await picture(`apply-${slug(theme)}`);
  }
  await editor.command("View: Close All Editors");
}

async function completion() {
  await editor.command("Nosa: New Chat", gone(editor.webview().locator(".turn")));
  await offer();
  await picture("completion");
  await editor.command("File: Revert File");
}

/** Has ghost text stand in the file. */
async function offer() {
  await editor.openFile(typed.file);
  await goTo(1 + lineWith(typed.file, typed.below));
  await page.keyboard.press("End");
  await page.keyboard.type(typed.frame, { delay: 15 });
  await page.keyboard.press("ArrowUp");
  await page.keyboard.press("End");
  await page.keyboard.type(typed.head, { delay: 15 });
  // Who writes so much takes longer: an offer that is asked for before all of it is read is a short one.
  await page.waitForTimeout(4_000);
  await page.keyboard.type(typed.last, { delay: 80 });
  await editor.ghostText().first().waitFor({ timeout: slowMs });
}

/** Lines count from 0. */
function lineWith(file, text) {
  return editor
    .readFile(file)
    .split("\n")
    .findIndex((line) => line.includes(text));
}

/** The cursor goes to a line, counted from 1. */
async function goTo(line) {
  const list = page.locator(".quick-input-widget:visible");
  await until(shown(list), () => page.keyboard.press("Control+G"));
  await list.locator("input.input").first().fill(`:${line}`);
  await page.keyboard.press("Enter");
  await until(gone(list), () => Promise.resolve());
}

/** Every view of ours in one theme. */
async function inTheme(theme) {
  const name = slug(theme);
  await editor.theme(theme);
  await offer();
  await picture(`completion-${name}`);
  await editor.command("File: Revert File");
  await editor.command("View: Close All Editors");
  await editor.command("Nosa: New Chat", gone(editor.webview().locator(".turn")));
  await editor.command("Nosa: Ask Nosa", shown(box()));
  await box().fill("/");
  await picture(`commands-${name}`, editor.webview().locator(".slash-entry"));
  await box().fill("");
  await walkthrough();
  await picture(`welcome-and-walkthrough-${name}`);
  await editor.command("View: Close All Editors");
  await ask(question);
  await editor.command("Nosa: Show Context Map", () => editor.showsPanel());
  const lit = editor.panel().locator(".file.is-lit").first();
  await lit.waitFor();
  await picture(`map-and-chat-${name}`);
  await lit.focus();
  await page.keyboard.press("ArrowDown");
  await picture(`map-by-keys-${name}`);
  // What the system's own high contrast makes of it: every ground is its own, and what is drawn as a ground is gone.
  if (theme.includes("High Contrast")) {
    await page.emulateMedia({ forcedColors: "active" });
    await picture(`forced-colours-${name}`);
    await page.emulateMedia({ forcedColors: "none" });
  }
  await editor.command("Nosa: Focus on Context View");
  await picture(`context-${name}`);
  await editor.statusBarItem(/Nosa: /).click();
  await picture(`menu-${name}`, rows());
  await editor.clear();
  await editor.command("Nosa: Select Model");
  await picture(`models-${name}`, rows());
  await editor.clear();
  await editor.command("View: Close All Editors");
}

/** "Light High Contrast" → "light-high-contrast". */
function slug(theme) {
  return theme.toLowerCase().replaceAll(" ", "-");
}

function rows() {
  return page.locator(".quick-input-widget:visible .monaco-list-row");
}

async function walkthrough() {
  const list = page.locator(".quick-input-widget:visible");
  await until(shown(page.locator(".gettingStartedContainer .step-title")), async () => {
    if (!(await shown(list)())) await editor.command("Welcome: Open Walkthrough...", shown(list));
    await list.locator("input.input").first().fill("Get started with Nosa", { timeout: tryMs });
    await list.locator(".monaco-list-row", { hasText: "Get started with Nosa" }).first().click({ timeout: tryMs });
  });
}

function box() {
  return editor.webview().getByPlaceholder("Ask about the repository");
}

function ask(words) {
  return answered(async () => {
    await editor.command("Nosa: Ask Nosa", shown(box()));
    await box().fill(words);
    await box().press("Enter");
  });
}

/** The whole answer that `act` brings about. */
async function answered(act) {
  const answers = editor.webview().locator(".turn-assistant");
  const before = await answers.count();
  await until(async () => (await answers.count()) > before, act, { eachMs: 30_000 });
  const answer = answers.nth(before);
  const isWhole = async () => !(await answer.getAttribute("class")).includes("is-streaming");
  await until(isWhole, () => Promise.resolve(), { withinMs: slowMs });
  return answer;
}

async function picture(name, awaited) {
  await awaited?.first().waitFor();
  // What moves comes to rest.
  await page.waitForTimeout(1_500);
  await until(gone(editor.statusBarItem(/Nosa: reading|Initializing|Analyzing/)), () => Promise.resolve());
  await unshifted();
  const file = await editor.shot(name);
  process.stdout.write(`${path.relative(inRoot(), file)}\n`);
  if (values.keep && ["chat", "map", "apply", "completion"].includes(name)) {
    copyFileSync(file, inRoot("docs/img", `${name}.png`));
  }
}

/** A click on a page within the page may move the whole window by some pixels, which nobody's own click does. */
async function unshifted() {
  await page.evaluate(() => {
    for (let each = document.querySelector(".part.editor"); each !== null; each = each.parentElement)
      each.scrollTo(0, 0);
  });
}
