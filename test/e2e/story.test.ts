/**
 * The story of a newcomer, in a real VS Code with the packaged extension: let it read a repository, stop and go on, ask in
 * both chats, complete a line, restart.
 *
 * The model is the quick one, so the words of an answer are not asserted; that they come, where they come from and what
 * ends up on disk is. Pictures of each step are kept in test-results/story/.
 */
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { defaultSettings } from "../../engine/config";
import { readLock } from "../../engine/lockFile";
import { dataFolder, dataPaths } from "../../engine/paths";
import { protocolVersion, type ContextStatus, type EngineStatus } from "../../engine/protocol";
import { inRoot } from "../../scripts/lib/paths.mjs";
import { vsixFile } from "../../scripts/package.mjs";
import { EngineTestClient } from "../support/engineHarness";
import { Editor } from "./harness";

const model = "smollm2-135m-instruct";
const sample = "parcel-desk";
/** More than one answer attends to, and less than the sample's KV. */
const memoryGigabytes = 0.3;
const scratch = realpathSync(mkdtempSync(path.join(tmpdir(), "nosa-story-")));
const workspace = path.join(scratch, sample);
const engineHome = path.join(scratch, "engine");

let editor: Editor;

beforeAll(async () => {
  cpSync(inRoot("samples", sample), workspace, { recursive: true });
  mkdirSync(engineHome, { mode: 0o700 });
  editor = await Editor.open({
    vsix: vsixFile,
    workspace,
    story: "story",
    settings: { "nosa.model": model, "nosa.memoryGigabytes": memoryGigabytes },
    env: {
      NOSA_HOME: engineHome,
      NOSA_MODELS_HOME: dataPaths(dataFolder(process.env)).models,
      NOSA_IDLE_EXIT_MS: "2000",
    },
  });
});

afterAll(async () => {
  await editor.close();
  rmSync(scratch, { recursive: true, force: true });
});

afterEach(async ({ task }) => {
  if (task.result?.state !== "fail") return;
  await editor.shot(`failed-${task.name.replaceAll(/\W+/g, "-").slice(0, 40)}`);
  process.stderr.write(`${editor.logs()}\n--- engine\n${engineLogs().slice(-6_000)}\n`);
});

describe.sequential("a newcomer's first half hour", () => {
  test("the extension starts and says so in the status bar", async () => {
    await editor.statusBarItem(/Nosa: .*SmolLM2.*nothing read/).waitFor({ timeout: 90_000 });
    await editor.shot("started");
  });

  test("reading the repository shows its speed and can be stopped", async () => {
    await editor.command("Nosa: Index Repository");
    const progress = editor.notification(/Reading parcel-desk/);
    await progress.filter({ hasText: /\d+% · .* tokens\/s · .* left/ }).waitFor({ timeout: 120_000 });
    await editor.statusBarItem(/Nosa: reading \d+%/).waitFor();
    await editor.shot("reading");
    await progress.getByRole("button", { name: "Cancel" }).click();
    await editor.notification(/Stopped\. What was read of parcel-desk is kept/).waitFor();
    await editor.statusBarItem(/Nosa: .*SmolLM2/).waitFor();
    await editor.shot("stopped");
  });

  test("reading goes on where it stopped, to the end", async () => {
    await dismissNotifications();
    await editor.command("Nosa: Index Repository");
    const done = editor.notification(/Nosa has read parcel-desk/);
    await done.waitFor({ timeout: 300_000 });
    const said = await done.innerText();
    const [whole = 0, read = 0] = tokensIn(said);
    expect(whole).toBeGreaterThan(8_000);
    expect(read).toBeGreaterThan(0);
    expect(read, `the second run reads less than all: ${said}`).toBeLessThan(whole);
    await editor.statusBarItem(/Nosa: .*SmolLM2.* [\d.]+k tokens/).waitFor();
    await editor.shot("read");
  });

  test("a question in our own view is answered with links into the repository", async () => {
    await dismissNotifications();
    await editor.command("Nosa: Ask Nosa");
    const view = editor.webview();
    const box = view.getByPlaceholder("Ask about the repository");
    await box.waitFor();
    await box.fill("Which port does the service listen on? Answer with the number only.");
    await box.press("Enter");
    const answer = view.locator(".turn-assistant").last();
    await view.locator(".turn-assistant:not(.is-streaming)").last().waitFor({ timeout: 240_000 });
    expect(await answer.getAttribute("class")).not.toContain("is-failed");
    expect(await answer.locator(".turn-body").innerText()).toMatch(/\w+ \w+/);
    const references = answer.locator(".reference-label");
    await references.first().waitFor();
    const files = filesOf(workspace);
    for (const label of await references.allInnerTexts()) expect(files).toContain(pathOf(label));
    await editor.shot("answered");
    const { context } = await engineStatus();
    expect(context?.policy).toBe("nosa");
    expect(context?.attendedBlocks).toBeGreaterThan(0);
    expect(context?.attendedBlocks).toBeLessThan(context?.totalBlocks ?? 0);
    const label = await references.first().innerText();
    await references.first().click();
    await editor.page
      .locator(`.editor-instance .monaco-editor[data-uri$="/${pathOf(label)}"]`)
      .first()
      .waitFor();
    await editor.shot("reference-opened");
  });

  test("an answer grows as it is written, and can be stopped", async () => {
    const view = editor.webview();
    const box = view.getByPlaceholder("Ask about the repository");
    await box.fill("Explain every file of this repository at length, one after the other.");
    await box.press("Enter");
    const answer = view.locator(".turn-assistant").last();
    const body = answer.locator(".turn-body");
    await body.filter({ hasText: /\w+ \w+ \w+/ }).waitFor({ timeout: 120_000 });
    const length = async (): Promise<number> => (await body.innerText()).length;
    const early = await length();
    await expect.poll(length, { timeout: 60_000 }).toBeGreaterThan(early + 20);
    await view.getByRole("button", { name: "Stop (Escape)" }).click();
    await view.locator(".turn-assistant:not(.is-streaming)").last().waitFor({ timeout: 5_000 });
    await view.getByRole("button", { name: "Ask (Enter)" }).waitFor();
    const atStop = await length();
    await editor.page.waitForTimeout(1_000);
    expect(await length()).toBe(atStop);
    await editor.shot("answer-stopped");
  });

  test("@nosa answers in the editor's own chat", async () => {
    // The editor's chat adds what is open to the question.
    await editor.command("View: Close All Editors");
    await editor.chat("@nosa On which port does the desk listen?");
    const answer = editor.chatAnswer();
    await answer.waitFor({ timeout: 60_000 });
    await editor.page.locator(".interactive-response:not(.chat-response-loading)").last().waitFor({ timeout: 240_000 });
    expect(await answer.locator(".rendered-markdown").first().innerText()).toMatch(/\w+ \w+/);
    await answer.locator(".chat-inline-anchor-widget").first().waitFor();
    await editor.shot("participant");
  });

  test("grey text is offered while typing, and Tab writes it to the file", async () => {
    const file = "src/fees.ts";
    const before = editor.readFile(file);
    await editor.openFile(file);
    await editor.page.keyboard.press("Control+End");
    const typed =
      "\n/** Sum of the fees of several parcels, in cents. */\n" +
      "export function totalFees(parcels: readonly Parcel[], nowMs: number, config: DeskConfig): number {\n" +
      "  let total = 0;\n  for (const parcel of parcels) ";
    await editor.page.keyboard.type(typed, { delay: 15 });
    const ghost = editor.ghostText();
    await ghost.first().waitFor({ timeout: 60_000 });
    await editor.shot("ghost-text");
    const offered = await ghost.first().innerText();
    expect(offered.trim()).not.toBe("");
    await editor.page.keyboard.press("Tab");
    await ghost.first().waitFor({ state: "detached" });
    await editor.page.keyboard.press("Control+S");
    await expect.poll(() => editor.readFile(file), { timeout: 30_000 }).not.toBe(before);
    const after = editor.readFile(file);
    expect(after.startsWith(before + typed)).toBe(true);
    expect(squeezed(after.slice((before + typed).length))).toContain(squeezed(offered));
    await editor.shot("accepted");
  });

  test("after a restart of the engine everything read is still known", async () => {
    const [before] = enginePids();
    await editor.command("Nosa: Restart Engine");
    await expect.poll(() => enginePids()[0], { timeout: 30_000 }).not.toBe(before);
    await dismissNotifications();
    await editor.command("Nosa: Index Repository");
    const again = editor.notification(/Nosa (knows parcel-desk already|has read parcel-desk)/);
    await again.waitFor({ timeout: 120_000 });
    // fees.ts was changed above, so its segment may be read anew; the rest is not.
    const [whole = 0, read = 0] = tokensIn(await again.innerText());
    expect(read).toBeLessThan(whole / 2);
    await editor.shot("restarted");
    await dismissNotifications();
    await editor.command("View: Close All Editors");
    await editor.chat("@nosa What does a parcel cost?");
    await editor.chatAnswer().waitFor({ timeout: 60_000 });
    await editor.page.locator(".interactive-response:not(.chat-response-loading)").last().waitFor({ timeout: 240_000 });
    // The answer before this one stands there too; what the engine says tells when the new one is over.
    const readFromDisk = async (): Promise<boolean> => {
      const { context, memory } = await engineStatus();
      const attended = context !== undefined && context.totalBlocks > 0 && context.attendedBlocks < context.totalBlocks;
      return attended && memory.diskBytesRead > 0 && memory.bytes < memory.bytesMax;
    };
    await expect.poll(readFromDisk, { timeout: 120_000, interval: 1_000 }).toBe(true);
  });

  test("the engine leaves after its last client", async () => {
    await editor.close();
    await expect.poll(() => enginePids(), { timeout: 20_000 }).toEqual([]);
  });
});

/** What the engine says of the sample, over a connection of the test's own. */
async function engineStatus(): Promise<{
  readonly context: ContextStatus | undefined;
  readonly memory: EngineStatus["memory"];
}> {
  const lock = await readLock(dataPaths(engineHome).lock);
  if (lock === undefined) throw new Error("No engine runs.");
  const client = await EngineTestClient.open(lock.address);
  try {
    const settings = { ...defaultSettings, model, memoryGigabytes };
    await client.introduce({ protocolVersion, token: lock.token, client: "test", settings });
    const { contexts, memory } = await client.request("nosa/status", {});
    return { context: contexts.find(({ root }) => root === workspace), memory };
  } finally {
    client.dispose();
  }
}

async function dismissNotifications(): Promise<void> {
  await editor.command("Notifications: Clear All Notifications");
  await editor.page.locator(".notification-toast").first().waitFor({ state: "detached" });
}

/** Numbers of tokens in a sentence, such as "10.6k tokens" → 10600. */
function tokensIn(text: string): number[] {
  const found = [...text.matchAll(/([\d.,]+)(k|M)? tokens/g)];
  return found.map(
    ([, digits = "", unit]) => Number(digits.replaceAll(",", "")) * (unit === "k" ? 1e3 : unit === "M" ? 1e6 : 1),
  );
}

/** "src/fees.ts:12-30" → "src/fees.ts". */
function pathOf(label: string): string {
  return label.replace(/:[\d-–]+$/, "");
}

function filesOf(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(folder, path.join(entry.parentPath, entry.name)));
}

/** The editor draws blanks as no-break spaces and may break lines. */
function squeezed(text: string): string {
  return text.replaceAll(/[\s\u00a0]+/g, "");
}

/** Pid of the engine of this story, as its lock file says, if it runs. */
function enginePids(): number[] {
  const { lock } = dataPaths(engineHome);
  if (!existsSync(lock)) return [];
  const { pid } = JSON.parse(readFileSync(lock, "utf8")) as { pid: number };
  try {
    process.kill(pid, 0);
    return [pid];
  } catch {
    return [];
  }
}

function engineLogs(): string {
  const { logs } = dataPaths(engineHome);
  if (!existsSync(logs)) return "";
  return readdirSync(logs)
    .map((name) => readFileSync(path.join(logs, name), "utf8"))
    .join("\n");
}
