/**
 * What a person sees when something is missing or breaks, in a real VS Code with the packaged extension and a scripted
 * engine: nothing read yet, an engine that dies in the middle of an answer, one of another version.
 *
 * Pictures of each step are kept in test-results/trouble/.
 */
import { writeFileSync } from "node:fs";
import { beforeAll, describe, expect, test } from "vitest";
import { readLock } from "../../engine/lockFile";
import { shown, until, type Editor } from "./harness";
import { busyMs, Scene } from "./scene";

const scene = new Scene("trouble");
let editor: Editor;

beforeAll(async () => {
  const settings = { "workbench.colorTheme": "Default Light Modern" };
  editor = await scene.open({ workspace: scene.copyOf("parcel-desk"), settings, stepMs: 50 });
});

describe.sequential("when something is missing or breaks", () => {
  test("a repository that was not read is said to be so, with the button that helps, in both chats", async () => {
    await scene.ask("Where do parcels go?");
    await editor.webview().locator(".is-failed", { hasText: "has not read this repository yet" }).waitFor();
    await editor.webview().getByRole("button", { name: "Index Repository" }).waitFor();
    const answer = await editor.chat("@nosa Where do parcels go?");
    await answer.getByText("has not read this repository yet").waitFor();
    await answer.getByText("Index Repository").waitFor();
  });

  test("reading that is stopped says what is kept, and no error is shown", async () => {
    await scene.showChat();
    scene.hold();
    const progress = editor.notification(/Reading parcel-desk/).first();
    await editor.click(editor.webview().getByRole("button", { name: "Index Repository" }), shown(progress));
    const stopped = editor.notification(/Stopped\. What was read of parcel-desk is kept/);
    await editor.click(progress.getByRole("button", { name: "Cancel" }), shown(stopped));
    scene.release();
    const read = editor.notification(/Nosa has read parcel-desk/);
    await editor.command("Nosa: Index Repository", shown(read), { eachMs: 30_000 });
    expect(await editor.page.locator(".notification-list-item .codicon-error").count()).toBe(0);
  });

  test("an answer that is stopped by Escape keeps what was written", async () => {
    await scene.read();
    scene.hold();
    const answer = await scene.ask("Explain it all.");
    await answer.getByText("Requests").waitFor();
    await until(shown(answer.getByText("Stopped")), () => scene.box.press("Escape"));
    expect(await answer.locator(".turn-body").innerText()).toContain("The work begins in");
  });

  test("an engine that dies in the middle of an answer is started again, and the answer says what happened", async () => {
    await scene.read();
    scene.hold();
    const before = await scene.enginePid();
    const answer = await scene.ask("Explain it again.");
    await answer.getByText("Requests").waitFor();
    process.kill(before, "SIGKILL");
    await answer.getByText("The engine stopped. It is started again").waitFor();
    await expect.poll(() => scene.enginePid(), { timeout: busyMs }).not.toBe(before);
    await editor.statusBarItem(/Nosa: .*nothing read/).waitFor({ timeout: busyMs });
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
    const accepted = (): boolean =>
      / {2}return this\.items\.get\(key\) \?\? fallback;$/.test(editor.readFile("src/fees.ts"));
    await until(accepted, () => editor.page.keyboard.press("Control+S"));
  });

  test("no ghost text comes in the chat's input box", async () => {
    const inChat = editor.page.locator(".chat-input-container .monaco-editor").first();
    await editor.click(inChat, shown(editor.page.locator(".chat-input-container .monaco-editor.focused")));
    await editor.page.keyboard.type("what about return", { delay: 50 });
    await inChat.locator(".view-lines", { hasText: "return" }).waitFor();
    // What is typed later, elsewhere, is answered: so is all that was asked for before.
    await editor.openFile("src/api.ts");
    await editor.page.keyboard.press("Control+End");
    await editor.page.keyboard.type("\nfunction find(): string {\n  return", { delay: 30 });
    await editor.ghostText().first().waitFor();
    expect(await editor.page.locator(".chat-input-container .ghost-text-decoration").count()).toBe(0);
    const asked = scene.requests("textDocument/inlineCompletion").map(({ params }) => params);
    expect(asked).not.toEqual([]);
    for (const params of asked) {
      expect(params).toMatchObject({ textDocument: { uri: expect.stringMatching(/\/src\/\w+\.ts$/) as string } });
    }
  });

  test("forgetting asks first, and frees what was kept", async () => {
    await scene.read();
    const dialog = editor.page.locator(".monaco-dialog-box");
    await editor.command("Nosa: Forget Repository", shown(dialog));
    const forgotten = editor.notification(/has forgotten parcel-desk/);
    await editor.click(dialog.getByRole("button", { name: "Forget" }), shown(forgotten));
    await editor.statusBarItem(/Nosa: .*nothing read/).waitFor();
  });

  test("an engine of another version is refused with a sentence and a button", async () => {
    await scene.showChat();
    const lock = await readLock(scene.lockFile);
    if (lock === undefined) throw new Error("No engine runs.");
    process.kill(lock.pid, "SIGKILL");
    // This very process stands in for a newer engine that speaks another protocol.
    writeFileSync(scene.lockFile, JSON.stringify({ ...lock, pid: process.pid, version: "9.0.0", protocolVersion: 99 }));
    await editor.statusBarItem("Nosa: not running").waitFor({ timeout: busyMs });
    await editor.webview().getByText("Nosa 9.0.0").waitFor();
    await editor.webview().getByRole("button", { name: "Reload Window" }).waitFor();
  });

  test("the log is shown, and says what happened", async () => {
    const lines = editor.page.locator(".part.panel .view-line", { hasText: /\[(info|warning|error)\]/ });
    await editor.command("Nosa: Show Log", shown(lines));
    await editor.page
      .locator(".part.panel .view-line", { hasText: /versionMismatch|Nosa.9\.0\.0/ })
      .first()
      .waitFor();
  });

  test("starting took no noticeable time", () => {
    const text = editor.log().join("\n");
    expect(Number(/is active after (\d+) ms/.exec(text)?.[1])).toBeLessThan(100);
  });
});
