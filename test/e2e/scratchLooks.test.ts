import { mkdtempSync, cpSync } from "node:fs";
import { it } from "vitest";
import { Editor } from "./harness";

const theme = process.env["LOOK_THEME"] ?? "Default Dark Modern";

it("looks", async () => {
  const workspace = mkdtempSync("/tmp/nosa-look-");
  cpSync("/root/nosa/ws-demo", workspace, { recursive: true });
  const home = mkdtempSync("/tmp/nosa-home-");
  const editor = await Editor.open({
    workspace,
    vsix: "/root/nosa/ext-dev/nosa-dev.vsix",
    story: `look-${theme.replaceAll(" ", "-")}`,
    settings: { "workbench.colorTheme": theme },
    env: { NOSA_HOME: home, NOSA_FAKE_MODEL: "none", NOSA_FAKE_STEP_MS: "100" },
  });
  const { page } = editor;
  const step = async (name: string, run: () => Promise<unknown>): Promise<void> => {
    try {
      await run();
    } catch (error) {
      console.log(`STEP ${name} failed: ${String(error).slice(0, 600)}`);
    }
    await editor.shot(name);
  };
  await step("started", () => editor.statusBarItem("no model yet").waitFor({ timeout: 90_000 }));
  await step("view-no-model", async () => {
    await editor.command("Nosa: Ask Nosa");
    await editor.webview().locator(".input").waitFor();
    await page.waitForTimeout(800);
  });
  await step("download", async () => {
    await editor.webview().getByRole("button", { name: "Download Model" }).click();
    await page.waitForTimeout(1500);
  });
  await step("downloaded", () => editor.notification("is ready").waitFor());
  await step("indexing", async () => {
    await page.locator(".notification-toast a.monaco-button", { hasText: "Index Repository" }).click();
    await page.waitForTimeout(1600);
  });
  await step("indexed", () => editor.notification("Nosa has read").waitFor());
  await step("chat-typing", async () => {
    await editor.webview().locator(".input").fill("Where are entries kept, and who checks them?\nName the files.");
  });
  await step("chat-waiting", async () => {
    await editor.webview().locator(".input").press("Enter");
    await page.waitForTimeout(700);
  });
  await step("chat-streaming", () => page.waitForTimeout(2200));
  await step("chat-done", () => editor.webview().locator(".references").waitFor());
  await step("reference-open", async () => {
    await editor.webview().locator(".reference").nth(1).click();
    await page.waitForTimeout(900);
  });
  await step("ghost", async () => {
    await editor.openFile("src/lock.ts");
    await page.keyboard.press("Control+End");
    await page.keyboard.type("\nfunction find(): string {\n  return", { delay: 40 });
    await editor.ghostText().first().waitFor();
    await page.keyboard.type(" this.", { delay: 60 });
    await page.waitForTimeout(300);
  });
  await step("ghost-accepted", async () => {
    await page.keyboard.press("Tab");
    await page.waitForTimeout(300);
  });
  await step("status-hover", async () => {
    await editor.statusBarItem("Nosa").first().hover();
    await page.waitForTimeout(1200);
  });
  await step("status-menu", async () => {
    await editor.statusBarItem("Nosa").first().click();
    await page.waitForTimeout(600);
  });
  await page.keyboard.press("Escape");
  await step("models", async () => {
    await editor.command("Nosa: Select Model");
    await page.waitForTimeout(600);
  });
  await page.keyboard.press("Escape");
  await step("context-tree", async () => {
    await page.locator(".pane-header", { hasText: "Context" }).click();
    await page.waitForTimeout(900);
  });
  await step("participant", async () => {
    await editor.chat("@nosa Where are entries kept?");
    await page.waitForTimeout(1500);
  });
  await step("participant-done", async () => {
    await editor.chatAnswer().getByText("Drawn from").waitFor();
    await page.waitForTimeout(500);
  });
  await step("walkthrough", async () => {
    await editor.command("Welcome: Open Walkthrough...");
    await page.waitForTimeout(600);
    await page.keyboard.type("nosa");
    await page.waitForTimeout(300);
    await page.keyboard.press("Enter");
    await page.waitForTimeout(1200);
  });
  console.log(editor.logs().split("--- ").filter((l) => l.includes("Nosa")).join("--- ").slice(-5000));
  await editor.close();
}, 300_000);
