// Takes the pictures of the README anew, in a real VS Code with the packaged extension and the default model, and the same views in
// four themes for whoever looks whether they are fit to be seen.
//
//   node scripts/pictures.mjs            into test-results/pictures/
//   node scripts/pictures.mjs --keep     and those of the README into docs/img/
import { copyFileSync, cpSync, mkdirSync, mkdtempSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { Editor, gone, shown, until } from "../bench/editor/harness.mjs";
import { modelsFolder } from "../bench/lib/product.mjs";
import { inRoot } from "./lib/paths.mjs";
import { prepareBundles, prepareVsix } from "./lib/prepare.mjs";
import { createSteps } from "./lib/steps.mjs";

const slowMs = 400_000;
const model = "qwen2.5-coder-0.5b-instruct";
const sample = "parcel-desk";
const question = "Which environment variable changes the port of the desk?";
const typed =
  "\n/** Sum of the fees of several parcels, in cents. */\n" +
  "export function totalFees(parcels: readonly Parcel[], nowMs: number, config: DeskConfig): number {\n" +
  "  return parcels.reduce((sum, parcel) => sum + ";

/** Seen beside README's pictures, each in its own theme. */
const themes = ["Light Modern", "Dark High Contrast", "Light High Contrast", "Dark Modern"];

const { values } = parseArgs({ options: { keep: { type: "boolean", default: false }, vsix: { type: "string" } } });
const scratch = realpathSync(mkdtempSync(path.join(tmpdir(), "nosa-pictures-")));
const workspace = path.join(scratch, sample);
const vsix = values.vsix ?? (await packaged());
cpSync(inRoot("samples", sample), workspace, { recursive: true });
mkdirSync(path.join(scratch, "engine"), { mode: 0o700 });
const editor = await Editor.open({
  vsix,
  workspace,
  story: "pictures",
  settings: { "nosa.model": model, "workbench.colorTheme": "Default Dark Modern" },
  env: { NOSA_HOME: path.join(scratch, "engine"), NOSA_MODELS_HOME: modelsFolder(), NOSA_IDLE_EXIT_MS: "2000" },
});
const { page } = editor;
try {
  await editor.statusBarItem(/Qwen.*nothing read/).waitFor({ timeout: slowMs });
  const done = editor.notification(/Nosa has read/);
  await editor.command("Nosa: Index Repository", shown(editor.notification(/Reading|has read/)));
  await done.first().waitFor({ timeout: slowMs });
  await editor.clearNotifications();
  await widen();
  await chat();
  await map();
  await change();
  await completion();
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
  const reference = answer.locator(".reference-label").first();
  await reference.click();
  await page.locator(".editor-instance .monaco-editor .view-line").first().waitFor();
  await picture("chat");
}

async function map() {
  await editor.command("Nosa: Show Context Map", () => editor.showsPanel());
  await editor.panel().locator(".file.is-lit").first().waitFor();
  await picture("map");
}

async function change() {
  await editor.command("View: Close All Editors");
  await editor.placeCursor("src/fees.ts", "padStart");
  await page.locator(".monaco-breadcrumb-item", { hasText: "formatCents" }).first().waitFor({ timeout: slowMs });
  await answered(() => editor.command("Nosa: Write Documentation Comment"));
  const preview = editor.webview().getByRole("button", { name: "Preview the change" }).last();
  await editor.click(preview, shown(page.locator(".tab", { hasText: "change from Nosa" })));
  await picture("apply");
  await editor.command("View: Close All Editors");
}

async function completion() {
  await editor.command("Nosa: New Chat", gone(editor.webview().locator(".turn-assistant")));
  await editor.openFile("src/fees.ts");
  await page.keyboard.press("Control+End");
  await page.keyboard.type(typed, { delay: 15 });
  await editor.ghostText().first().waitFor({ timeout: slowMs });
  await picture("completion");
  await editor.command("File: Revert File");
}

/** The same views as a person sees them in one theme, beside what the README does not show. */
async function inTheme(theme) {
  const name = theme.toLowerCase().replaceAll(" ", "-");
  await editor.theme(theme);
  await editor.command("Nosa: Ask Nosa", shown(box()));
  if (!(await shown(editor.webview().locator(".turn-assistant"))())) await ask(question);
  await editor.command("Nosa: Show Context Map", () => editor.showsPanel());
  await editor.panel().locator(".file.is-lit").first().waitFor();
  await picture(`map-and-chat-${name}`);
  await editor.command("Nosa: Focus on Context View");
  await picture(`context-${name}`);
  await editor.statusBarItem(/Nosa: /).click();
  await page.locator(".quick-input-widget:visible .monaco-list-row").first().waitFor();
  await picture(`menu-${name}`);
  await editor.clear();
  await editor.command("View: Close All Editors");
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

async function picture(name) {
  // What moves comes to rest.
  await page.waitForTimeout(1_500);
  const file = await editor.shot(name);
  process.stdout.write(`${path.relative(inRoot(), file)}\n`);
  if (values.keep && ["chat", "map", "apply", "completion"].includes(name)) {
    copyFileSync(file, inRoot("docs/img", `${name}.png`));
  }
}
