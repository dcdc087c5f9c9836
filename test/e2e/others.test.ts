/**
 * Workspaces with several folders, workspaces that are not trusted yet, and other extensions that use our tool and our
 * model, in a real VS Code with a scripted engine. The other extension is made here: it calls what the editor offers to
 * any extension, and writes down what it gets.
 *
 * Pictures of each step are kept in test-results/others/.
 */
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { Locator } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { readLock } from "../../engine/lockFile";
import { dataPaths } from "../../engine/paths";
import type { ChatParams } from "../../engine/protocol";
import { inRoot } from "../../scripts/lib/paths.mjs";
import { run } from "../../scripts/lib/run.mjs";
import { vsixFile } from "../../scripts/package.mjs";
import { bundleFakeEngine } from "../support/fakeEngineBundle";
import { Editor } from "./harness";

const scratch = realpathSync(mkdtempSync(path.join(tmpdir(), "nosa-others-")));
const desk = path.join(scratch, "parcel-desk");
const notes = path.join(scratch, "notes");
const workspace = path.join(scratch, "both.code-workspace");
const engineHome = path.join(scratch, "engine");
const engineFile = path.join(scratch, "engine.js");
const record = path.join(scratch, "record.jsonl");
const got = path.join(scratch, "got.json");

let editor: Editor;

beforeAll(async () => {
  cpSync(inRoot("samples/parcel-desk"), desk, { recursive: true });
  mkdirSync(notes);
  writeFileSync(path.join(notes, "plan.md"), "# Plan\n\nThe desk opens at nine.\n");
  writeFileSync(workspace, JSON.stringify({ folders: [{ path: desk }, { path: notes }] }));
  mkdirSync(engineHome, { mode: 0o700 });
  writeFileSync(record, "");
  await bundleFakeEngine(engineFile);
  editor = await Editor.open({
    vsix: vsixFile,
    others: [await packagedCaller()],
    engineFile,
    workspace,
    story: "others",
    asksForTrust: true,
    env: { NOSA_HOME: engineHome, NOSA_FAKE_STEP_MS: "20", NOSA_FAKE_RECORD: record, CALLER_RESULT: got },
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

describe.sequential("workspaces and other extensions", () => {
  test("nothing is read, and no tool answers, until the workspace is trusted", async () => {
    await editor.statusBarItem("Restricted Mode").waitFor();
    await editor.statusBarItem(/Nosa: .*nothing read/).waitFor({ timeout: 90_000 });
    await editor.command("Nosa: Ask Nosa");
    await editor.webview().getByText("only after you trust its workspace").waitFor();
    // Chat without a repository goes on.
    await ask("What is a parcel?");
    expect(lastChat().root).toBe("");
    await editor.command("Caller: Call Repo");
    await expect
      .poll(result)
      .toMatchObject({ error: expect.stringMatching(/trust|not found|unknown|disabled/i) as string });
    expect(requests("nosa/index")).toEqual([]);
    await editor.shot("restricted");
  });

  test("once trusted, every folder of the workspace is read and shown", async () => {
    await editor.webview().getByRole("button", { name: "Manage Workspace Trust" }).click();
    await editor.page
      .locator(".workspace-trust-editor")
      .getByRole("button", { name: "Trust", exact: true })
      .first()
      .click();
    await editor.page.getByText("You trust this workspace").first().waitFor();
    // The page lies over the window: the topmost of the buttons that close something is its own.
    await editor.page
      .getByRole("button", { name: /^Close/ })
      .last()
      .click();
    await editor.page.getByText("You trust this workspace").first().waitFor({ state: "detached" });
    await editor.command("Nosa: Index Repository");
    await editor.page.locator(".quick-input-widget:visible .monaco-list-row", { hasText: "All folders" }).click();
    await editor
      .notification(/Nosa has read notes/)
      .first()
      .waitFor();
    const roots = requests("nosa/index").map(({ params }) => (params as { root: string }).root);
    expect(roots.toSorted()).toEqual([notes, desk].toSorted());
    await editor.command("Nosa: Focus on Context View");
    const tree = editor.page.locator(".pane", { has: editor.page.getByRole("button", { name: "Context Section" }) });
    await tree.locator(".monaco-list-row", { hasText: "parcel-desk" }).waitFor();
  });

  test("a question is about the folder of the file that is open", async () => {
    await editor.openFile("plan.md");
    await ask("When does the desk open?");
    expect(lastChat().root).toBe(notes);
    await editor.openFile("fees.ts");
    await ask("What does storage cost?");
    expect(lastChat().root).toBe(desk);
  });

  test("another extension's model may ask what was read, and gets the very lines", async () => {
    await editor.command("Caller: Call Repo");
    await expect.poll(() => String(result()["text"])).toMatch(/The work begins in/);
    const text = String(result()["text"]);
    // The scripted answer draws on the first files; the tool shows their lines as they are on disk.
    const first = readFileSync(path.join(desk, "README.md"), "utf8").split("\n").slice(0, 3).join("\n");
    expect(text).toContain(first);
    expect(lastChat()).toMatchObject({ root: desk, messages: [{ role: "user", content: "Where are fees decided?" }] });
  });

  test("our model serves another extension: system text as system, and a call that fits its schema", async () => {
    await editor.command("Caller: Call Model");
    const allow = editor.page.locator(".monaco-dialog-box").getByRole("button", { name: /Allow/ });
    await allow.click({ timeout: 10_000 }).catch(() => undefined);
    await expect
      .poll(() => result()["calls"], { timeout: 30_000 })
      .toEqual([{ name: "read", input: { path: "src/fees.ts" } }]);
    expect(result()["text"]).toContain("I look.");
    const chats = requests("nosa/chat").map(({ params }) => params as ChatParams);
    const [asked, corrected] = chats.slice(-2);
    expect(asked?.messages.map(({ role }) => role)).toEqual(["system", "user"]);
    expect(asked?.messages[0]?.content).toContain('"name":"read"');
    expect(corrected?.messages.at(-1)?.content).toContain("arguments.path is missing");
  });
});

/** An extension that asks the editor for our tool and our model, as any other would. */
async function packagedCaller(): Promise<string> {
  const folder = path.join(scratch, "caller");
  mkdirSync(folder);
  const manifest = {
    name: "caller",
    publisher: "nosa-test",
    version: "0.0.1",
    engines: { vscode: "^1.106.0" },
    main: "./extension.js",
    activationEvents: [],
    capabilities: { untrustedWorkspaces: { supported: true } },
    contributes: {
      commands: [
        { command: "caller.repo", title: "Caller: Call Repo" },
        { command: "caller.model", title: "Caller: Call Model" },
      ],
    },
  };
  writeFileSync(path.join(folder, "package.json"), JSON.stringify(manifest));
  writeFileSync(
    path.join(folder, "extension.js"),
    `const vscode = require("vscode");
const { writeFileSync } = require("node:fs");
const keep = (value) => writeFileSync(process.env.CALLER_RESULT, JSON.stringify(value));
const tried = (work) => () => work().catch((error) => keep({ error: String(error.message) }));
async function repo() {
  const result = await vscode.lm.invokeTool("nosa_repo", {
    input: { question: "Where are fees decided?" },
    toolInvocationToken: undefined,
  });
  keep({ text: result.content.map((part) => part.value).join("") });
}
async function model() {
  const [ours] = await vscode.lm.selectChatModels({ vendor: "nosa" });
  const schema = { type: "object", required: ["path"], properties: { path: { type: "string" } } };
  const tools = [{ name: "read", description: "Reads a file", inputSchema: schema }];
  const messages = [vscode.LanguageModelChatMessage.User("Read the fees.")];
  const response = await ours.sendRequest(messages, { tools });
  const got = { text: "", calls: [] };
  for await (const part of response.stream) {
    if (part instanceof vscode.LanguageModelTextPart) got.text += part.value;
    else if (part instanceof vscode.LanguageModelToolCallPart) got.calls.push({ name: part.name, input: part.input });
  }
  keep(got);
}
exports.activate = ({ subscriptions }) => {
  subscriptions.push(vscode.commands.registerCommand("caller.repo", tried(repo)));
  subscriptions.push(vscode.commands.registerCommand("caller.model", tried(model)));
};
`,
  );
  const file = path.join(scratch, "caller.vsix");
  const vsce = inRoot("node_modules/@vscode/vsce/vsce");
  const options = ["--no-dependencies", "--allow-missing-repository", "--skip-license", "--out", file];
  await run(process.execPath, [vsce, "package", ...options], { cwd: folder, log: "vsce-caller" });
  return file;
}

/** What the other extension got last. */
function result(): Record<string, unknown> {
  return existsSync(got) ? (JSON.parse(readFileSync(got, "utf8")) as Record<string, unknown>) : {};
}

async function ask(question: string): Promise<void> {
  const box: Locator = editor.webview().getByRole("textbox");
  const before = requests("nosa/chat").length;
  await box.fill(question);
  await box.press("Enter");
  await expect.poll(() => requests("nosa/chat").length).toBeGreaterThan(before);
  await editor.webview().locator(".turn-assistant.is-streaming").waitFor({ state: "detached" });
}

function requests(method: string): readonly { readonly method: string; readonly params: unknown }[] {
  return readFileSync(record, "utf8")
    .split("\n")
    .flatMap((line) => (line === "" ? [] : [JSON.parse(line) as { method: string; params: unknown }]))
    .filter((each) => each.method === method);
}

function lastChat(): ChatParams {
  return requests("nosa/chat").at(-1)?.params as ChatParams;
}
