/**
 * What a person sees when something is missing or breaks, in a real VS Code with the packaged extension and a scripted
 * engine: nothing read yet, an engine that dies in the middle of an answer, one of another version.
 *
 * Pictures of each step are kept in test-results/trouble/.
 */
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { Locator } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { readLock } from "../../engine/lockFile";
import { dataPaths } from "../../engine/paths";
import { inRoot } from "../../scripts/lib/paths.mjs";
import { vsixFile } from "../../scripts/package.mjs";
import { bundleFakeEngine } from "../support/fakeEngineBundle";
import { Editor } from "./harness";

const sample = "parcel-desk";
const scratch = realpathSync(mkdtempSync(path.join(tmpdir(), "nosa-trouble-")));
const workspace = path.join(scratch, sample);
const engineHome = path.join(scratch, "engine");
const engineFile = path.join(scratch, "engine.js");

let editor: Editor;

beforeAll(async () => {
  cpSync(inRoot("samples", sample), workspace, { recursive: true });
  mkdirSync(engineHome, { mode: 0o700 });
  await bundleFakeEngine(engineFile);
  editor = await Editor.open({
    vsix: vsixFile,
    engineFile,
    workspace,
    story: "trouble",
    settings: { "workbench.colorTheme": "Default Light Modern" },
    env: { NOSA_HOME: engineHome, NOSA_FAKE_STEP_MS: "50" },
  });
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

describe.sequential("when something is missing or breaks", () => {
  test("a repository that was not read is said to be so, with the button that helps, in both chats", async () => {
    await editor.statusBarItem(/Nosa: .*nothing read/).waitFor({ timeout: 90_000 });
    await editor.command("Nosa: Ask Nosa");
    await ask("Where do parcels go?");
    await editor.webview().locator(".is-failed", { hasText: "has not read this repository yet" }).waitFor();
    await editor.webview().getByRole("button", { name: "Index Repository" }).waitFor();
    await editor.chat("@nosa Where do parcels go?");
    const answer = editor.chatAnswer();
    await answer.getByText("has not read this repository yet").waitFor();
    await answer.getByText("Index Repository").waitFor();
  });

  test("reading that is stopped says what is kept, and no error is shown", async () => {
    await editor.webview().getByRole("button", { name: "Index Repository" }).click();
    const progress = editor.notification(/Reading parcel-desk/).first();
    await progress.getByRole("button", { name: "Cancel" }).click();
    await editor
      .notification(/Stopped\. What was read of parcel-desk is kept/)
      .first()
      .waitFor();
    await editor.command("Nosa: Index Repository");
    await editor
      .notification(/Nosa has read parcel-desk/)
      .first()
      .waitFor();
    expect(await editor.page.locator(".notification-list-item .codicon-error").count()).toBe(0);
  });

  test("an answer that is stopped by Escape keeps what was written", async () => {
    const answer = await ask("Explain it all.");
    await answer.getByText("Requests").waitFor();
    await editor.webview().getByPlaceholder("Ask about the repository").press("Escape");
    await answer.getByText("Stopped").waitFor();
    expect(await answer.locator(".turn-body").innerText()).toContain("The work begins in");
  });

  test("an engine that dies in the middle of an answer is started again, and the answer says what happened", async () => {
    const before = await enginePid();
    const answer = await ask("Explain it again.");
    await answer.getByText("Requests").waitFor();
    process.kill(before, "SIGKILL");
    await answer.getByText("The engine stopped. It is started again").waitFor();
    await expect.poll(enginePid, { timeout: 20_000 }).not.toBe(before);
    await editor.statusBarItem(/Nosa: .*nothing read/).waitFor();
    // Nobody asked for anything, so nothing pops up.
    expect(await editor.page.locator(".notification-toast .codicon-error").count()).toBe(0);
  });

  test("after it, ghost text comes once for each pause, and follows the typing", async () => {
    await editor.openFile("src/fees.ts");
    await editor.page.keyboard.press("Control+End");
    await editor.page.keyboard.type("\nfunction find(): string {\n  return", { delay: 30 });
    await editor.ghostText().first().waitFor();
    await editor.page.keyboard.type(" this", { delay: 30 });
    // Coloured by the editor, grey text is one piece for each token.
    const grey = async (): Promise<string> => (await editor.ghostText().allInnerTexts()).join("");
    await expect.poll(grey).toMatch(/^\.items\.get/);
    await editor.page.keyboard.press("Tab");
    await editor.page.keyboard.press("Control+S");
    await expect
      .poll(() => editor.readFile("src/fees.ts"))
      .toMatch(/ {2}return this\.items\.get\(key\) \?\? fallback;$/);
  });

  test("no ghost text comes in the chat's input box", async () => {
    await editor.page.locator(".chat-input-container .monaco-editor").first().click();
    await editor.page.keyboard.type("what about return", { delay: 50 });
    // Longer than the longest wait for a pause and the scripted engine's answer together.
    await editor.page.waitForTimeout(1_200);
    expect(await editor.page.locator(".chat-input-container .ghost-text-decoration").count()).toBe(0);
  });

  test("forgetting asks first, and frees what was kept", async () => {
    await editor.command("Nosa: Index Repository");
    await editor.statusBarItem(/Nosa: .*k tokens/).waitFor();
    await editor.command("Nosa: Forget Repository");
    await editor.page.locator(".monaco-dialog-box").getByRole("button", { name: "Forget" }).click();
    await editor
      .notification(/has forgotten parcel-desk/)
      .first()
      .waitFor();
    await editor.statusBarItem(/Nosa: .*nothing read/).waitFor();
  });

  test("an engine of another version is refused with a sentence and a button", async () => {
    const { lock: lockPath } = dataPaths(engineHome);
    const lock = await readLock(lockPath);
    if (lock === undefined) throw new Error("No engine runs.");
    process.kill(lock.pid, "SIGKILL");
    // This very process stands in for a newer engine that speaks another protocol.
    writeFileSync(lockPath, JSON.stringify({ ...lock, pid: process.pid, version: "9.0.0", protocolVersion: 99 }));
    await editor.statusBarItem("Nosa: not running").waitFor();
    await editor.webview().getByText("Nosa 9.0.0").waitFor();
    await editor.webview().getByRole("button", { name: "Reload Window" }).waitFor();
  });

  test("starting took no noticeable time", () => {
    const log = readdirSync(path.join(editor.home, "profile/data/logs"), { recursive: true, encoding: "utf8" }).find(
      (file) => file.endsWith("Nosa.log"),
    );
    const text = readFileSync(path.join(editor.home, "profile/data/logs", log ?? ""), "utf8");
    expect(Number(/is active after (\d+) ms/.exec(text)?.[1])).toBeLessThan(100);
  });
});

/** Asks in our own view; gives the answer's place once it is there, so that an older one is not taken for it. */
async function ask(question: string): Promise<Locator> {
  const answers = editor.webview().locator(".turn-assistant");
  const before = await answers.count();
  const box = editor.webview().getByPlaceholder("Ask about the repository");
  await box.fill(question);
  await box.press("Enter");
  await answers.nth(before).waitFor();
  return answers.nth(before);
}

async function enginePid(): Promise<number> {
  return (await readLock(dataPaths(engineHome).lock))?.pid ?? 0;
}
