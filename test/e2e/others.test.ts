/**
 * Workspaces with several folders, workspaces that are not trusted yet, and other extensions that use our tool and our
 * model, in a real VS Code with a scripted engine. The other extension is made here: it calls what the editor offers to
 * any extension, and writes down what it gets.
 *
 * Pictures of each step are kept in test-results/others/.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { ChatParams } from "../../engine/protocol";
import { inRoot } from "../../scripts/lib/paths.mjs";
import { run } from "../../scripts/lib/run.mjs";
import { gone, shown, tryMs, until, type Editor } from "./harness";
import { Scene } from "./scene";

const scene = new Scene("others");
const desk = scene.copyOf("parcel-desk");
const notes = path.join(scene.scratch, "notes");
const workspace = path.join(scene.scratch, "both.code-workspace");
const got = path.join(scene.scratch, "got.json");
let editor: Editor;

beforeAll(async () => {
  mkdirSync(notes);
  writeFileSync(path.join(notes, "plan.md"), "# Plan\n\nThe desk opens at nine.\n");
  writeFileSync(workspace, JSON.stringify({ folders: [{ path: desk }, { path: notes }] }));
  const others = [await packagedCaller()];
  editor = await scene.open({ workspace, others, asksForTrust: true, env: { CALLER_RESULT: got }, stepMs: 20 });
});

describe.sequential("workspaces and other extensions", () => {
  test("nothing is read, and no tool answers, until the workspace is trusted", async () => {
    await editor.statusBarItem("Restricted Mode").waitFor();
    await scene.showChat();
    await editor.webview().getByText("only after you trust its workspace").waitFor();
    // Chat without a repository goes on.
    await scene.whole(await scene.ask("What is a parcel?"));
    expect(scene.lastChat().root).toBe("");
    const refused = await called("Caller: Call Repo");
    expect(refused).toMatchObject({ error: expect.stringMatching(/trust|not found|unknown|disabled/i) as string });
    expect(scene.requests("nosa/index")).toEqual([]);
    await editor.shot("restricted");
  });

  describe("once it is trusted", () => {
    beforeEach(trust);

    test("every folder of the workspace is read and shown", async () => {
      await readAll();
      const roots = scene.requests("nosa/index").map(({ params }) => (params as { root: string }).root);
      expect(new Set(roots)).toEqual(new Set([notes, desk]));
      const pane = editor.page.locator(".pane", { has: editor.page.getByRole("button", { name: "Context Section" }) });
      const row = pane.locator(".monaco-list-row", { hasText: "parcel-desk" });
      await editor.command("Nosa: Focus on Context View", shown(row));
    });

    test("a question is about the folder of the file that is open", async () => {
      await readAll();
      await editor.openFile("plan.md");
      await scene.whole(await scene.ask("When does the desk open?"));
      expect(scene.lastChat().root).toBe(notes);
      await editor.openFile("src/fees.ts");
      await scene.whole(await scene.ask("What does storage cost?"));
      expect(scene.lastChat().root).toBe(desk);
    });

    test("another extension's model may ask what was read, and gets the very lines", async () => {
      await readAll();
      await editor.openFile("src/fees.ts");
      const text = String((await called("Caller: Call Repo"))["text"]);
      expect(text).toMatch(/The work begins in/);
      // The scripted answer draws on the first files; the tool shows their lines as they are on disk.
      const first = readFileSync(path.join(desk, "README.md"), "utf8").split("\n").slice(0, 3).join("\n");
      expect(text).toContain(first);
      const question = { role: "user", content: "Where are fees decided?" };
      expect(scene.lastChat()).toMatchObject({ root: desk, messages: [question] });
    });

    test("our model serves another extension: system text as system, and a call that fits its schema", async () => {
      const answer = await called("Caller: Call Model");
      expect(answer["calls"]).toEqual([{ name: "read", input: { path: "src/fees.ts" } }]);
      expect(answer["text"]).toContain("I look.");
      const chats = scene.requests("nosa/chat").map(({ params }) => params as ChatParams);
      const [asked, corrected] = chats.slice(-2);
      expect(asked?.messages.map(({ role }) => role)).toEqual(["system", "user"]);
      expect(asked?.messages[0]?.content).toContain('"name":"read"');
      expect(corrected?.messages.at(-1)?.content).toContain("arguments.path is missing");
    });
  });
});

/** Trusts the workspace, unless it is. */
async function trust(): Promise<void> {
  const restricted = editor.statusBarItem("Restricted Mode");
  if (!(await shown(restricted)())) return;
  const page = editor.page.locator(".workspace-trust-editor");
  const trusted = editor.page.getByText("You trust this workspace");
  await scene.showChat();
  await editor.click(editor.webview().getByRole("button", { name: "Manage Workspace Trust" }), shown(page));
  await editor.click(page.getByRole("button", { name: "Trust", exact: true }), shown(trusted));
  // The page lies over the window: the topmost of the buttons that close something is its own.
  await editor.click(editor.page.getByRole("button", { name: /^Close/ }).last(), gone(trusted));
  await expect.poll(shown(restricted)).toBe(false);
}

/** Has both folders read, unless they are. */
async function readAll(): Promise<void> {
  const roots = new Set(scene.requests("nosa/index").map(({ params }) => (params as { root: string }).root));
  if (roots.size === 2 && (await shown(editor.statusBarItem(/Nosa: .*k tokens/))())) return;
  const done = editor.notification(/Nosa has read notes/);
  const all = editor.page.locator(".quick-input-widget:visible .monaco-list-row", { hasText: "All folders" });
  await until(
    shown(done),
    async () => {
      await editor.command("Nosa: Index Repository", shown(all));
      await all.click({ timeout: tryMs });
    },
    { eachMs: 30_000 },
  );
}

/** What the other extension got when it was told to ask; the editor may want to know first whether it may. */
async function called(command: string): Promise<Record<string, unknown>> {
  rmSync(got, { force: true });
  const allow = editor.page.locator(".monaco-dialog-box").getByRole("button", { name: /Allow/ });
  await until(
    () => result() !== undefined,
    async () => {
      if (!(await shown(allow)())) {
        const answered = async (): Promise<boolean> => result() !== undefined || shown(allow)();
        await editor.command(command, answered, { eachMs: 30_000 });
      }
      if (await shown(allow)()) await allow.click({ timeout: tryMs });
    },
    { eachMs: 30_000 },
  );
  return result() ?? {};
}

/** What it wrote down last, when that is all there. */
function result(): Record<string, unknown> | undefined {
  try {
    return JSON.parse(readFileSync(got, "utf8")) as Record<string, unknown>;
  } catch {
    return undefined;
  }
}

/** An extension that asks the editor for our tool and our model, as any other would. */
async function packagedCaller(): Promise<string> {
  const folder = path.join(scene.scratch, "caller");
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
  const file = path.join(scene.scratch, "caller.vsix");
  const vsce = inRoot("node_modules/@vscode/vsce/vsce");
  const options = ["--no-dependencies", "--allow-missing-repository", "--skip-license", "--out", file];
  await run(process.execPath, [vsce, "package", ...options], { cwd: folder, log: "vsce-caller" });
  return file;
}
