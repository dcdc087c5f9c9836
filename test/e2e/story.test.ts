/**
 * The story of a newcomer, in a real VS Code with the packaged extension: let it read a repository, stop and go on, ask in
 * both chats, complete a line, restart.
 *
 * The model is the quick one, so the words of an answer are not asserted; that they come, where they come from and what
 * ends up on disk is. Pictures of each step are kept in test-results/story/.
 */
import { execFileSync } from "node:child_process";
import {
  cpSync,
  existsSync,
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
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { defaultSettings } from "../../engine/config";
import { readLock } from "../../engine/lockFile";
import { dataFolder, dataPaths } from "../../engine/paths";
import { protocolVersion, type ContextStatus, type EngineStatus } from "../../engine/protocol";
import { isAlive } from "../../engine/util/isAlive";
import { inRoot } from "../../scripts/lib/paths.mjs";
import { vsixFile } from "../../scripts/package.mjs";
import { EngineTestClient } from "../support/engineHarness";
import { Editor, shown, until } from "./harness";

const model = "smollm2-135m-instruct";
const sample = "parcel-desk";
/** More than one answer attends to, and less than the sample's KV. */
const memoryGigabytes = 0.3;
/** What reading the sample, or an answer, takes at the most on a machine that is busy. */
const slowMs = 400_000;
/** How long somebody looks at an offer. */
const readingMs = 2_000;
const scratch = realpathSync(mkdtempSync(path.join(tmpdir(), "nosa-story-")));
const workspace = path.join(scratch, sample);
const engineHome = path.join(scratch, "engine");

let editor: Editor;

beforeAll(async () => {
  cpSync(inRoot("samples", sample), workspace, { recursive: true });
  git("init", "--quiet", "--initial-branch", "main");
  git("add", ".");
  commitAdded("Begin");
  mkdirSync(engineHome, { mode: 0o700 });
  editor = await Editor.open({
    vsix: vsixFile,
    workspace,
    story: "story",
    settings: { "nosa.model": model, "nosa.memoryGigabytes": memoryGigabytes, "git.enabled": true },
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

beforeEach(() => editor.clear());

afterEach(async ({ task }) => {
  if (task.result?.state !== "fail") return;
  await editor.shot(`failed-${task.name.replaceAll(/\W+/g, "-").slice(0, 40)}`);
  process.stderr.write(`${editor.logs()}\n--- engine\n${engineLogs().slice(-6_000)}\n`);
});

describe.sequential("a newcomer's first half hour", () => {
  test("the extension starts and says so in the status bar", async () => {
    await editor.statusBarItem(/Nosa: .*SmolLM2.*nothing read/).waitFor({ timeout: slowMs });
    await editor.shot("started");
  });

  test("reading the repository shows its speed and can be stopped", async () => {
    const progress = editor.notification(/Reading parcel-desk/);
    await editor.command("Nosa: Index Repository", shown(progress));
    await progress.filter({ hasText: /\d+% · .* tokens\/s · .* left/ }).waitFor({ timeout: slowMs });
    await editor.statusBarItem(/Nosa: reading \d+%/).waitFor();
    await editor.shot("reading");
    const stopped = editor.notification(/Stopped\. What was read of parcel-desk is kept/);
    await editor.click(progress.getByRole("button", { name: "Cancel" }), shown(stopped));
    await editor.statusBarItem(/Nosa: .*SmolLM2/).waitFor();
    await editor.shot("stopped");
  });

  test("reading goes on where it stopped, to the end", async () => {
    const said = await read(/Nosa has read parcel-desk/);
    const [whole = 0, tokensRead = 0] = tokensIn(said);
    expect(whole).toBeGreaterThan(8_000);
    expect(tokensRead).toBeGreaterThan(0);
    expect(tokensRead, `the second run reads less than all: ${said}`).toBeLessThan(whole);
    await editor.statusBarItem(/Nosa: .*SmolLM2.* [\d.]+k tokens/).waitFor();
    await editor.shot("read");
  });

  describe("with a repository that was read", () => {
    beforeEach(async () => {
      if (!(await shown(editor.statusBarItem(/Nosa: .*[\d.]+k tokens/))())) await read();
    });

    test("a question in our own view is answered with links into the repository", async () => {
      const answer = await ask("Which port does the service listen on? Answer with the number only.");
      await expect.poll(() => answer.getAttribute("class"), { timeout: slowMs }).not.toContain("is-streaming");
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
      const opened = editor.page.locator(`.editor-instance .monaco-editor[data-uri$="/${pathOf(label)}"]`);
      await editor.click(references, shown(opened));
      await editor.shot("reference-opened");
    });

    test("an answer grows as it is written, and can be stopped", async () => {
      const view = editor.webview();
      // A small model may be done before anybody stops it: then it is asked once more.
      const stopped = async (): Promise<boolean> => {
        const answer = await ask("Explain every file of this repository at length, one after the other.");
        const body = answer.locator(".turn-body");
        await body.filter({ hasText: /\w+ \w+ \w+/ }).waitFor({ timeout: slowMs });
        const length = async (): Promise<number> => (await body.innerText()).length;
        const early = await length();
        await expect.poll(length, { timeout: slowMs }).toBeGreaterThan(early + 20);
        const ended = view.getByRole("button", { name: "Ask (Enter)" });
        await editor.click(view.getByRole("button", { name: "Stop (Escape)" }), shown(ended), { withinMs: 20_000 });
        if (!(await shown(answer.getByText("Stopped"))())) return false;
        const atStop = await length();
        // The engine rests, so nothing is on its way any more.
        await expect.poll(async () => (await engineStatus()).activity.kind, { timeout: slowMs }).toBe("idle");
        expect(await length()).toBe(atStop);
        return true;
      };
      for (let tries = 1; tries <= 5; tries += 1) {
        if (await stopped()) return void (await editor.shot("answer-stopped"));
      }
      throw new Error("Every answer was done before it was stopped.");
    });

    test("@nosa answers in the editor's own chat", async () => {
      const answer = await editor.chat("@nosa On which port does the desk listen?");
      await editor.answered(answer, slowMs);
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
      await ghost.first().waitFor({ timeout: slowMs });
      await editor.shot("ghost-text");
      const offered = await ghost.first().innerText();
      expect(offered.trim()).not.toBe("");
      await editor.page.keyboard.press("Tab");
      await ghost.first().waitFor({ state: "detached" });
      // A file that is being written is empty for a moment.
      let after = "";
      await until(
        () => {
          after = editor.readFile(file);
          return after.length >= before.length + typed.length;
        },
        () => editor.page.keyboard.press("Control+S"),
      );
      expect(after.slice(0, (before + typed).length)).toBe(before + typed);
      expect(squeezed(after.slice((before + typed).length))).toContain(squeezed(offered));
      await editor.shot("accepted");
    });

    test("who asks is told what a completion cost", async () => {
      await editor.openFile("src/desk.ts");
      await editor.page.keyboard.press("Control+End");
      await editor.page.keyboard.type("\n/** Parcels that wait. */\nexport function waiting(", { delay: 30 });
      const ghost = editor.ghostText();
      await ghost.first().waitFor({ timeout: slowMs });
      const said = editor.notification(
        /(\d+ ms: .*waiting, .*reading, .*writing\. \d+ tokens attended to, \d+ blocks fetched)|ready before it was asked for/,
      );
      await editor.command("Nosa: Show What the Last Completion Cost", shown(said));
      await editor.shot("cost");
      await editor.command("File: Revert File");
    });

    test("what follows an offer is begun before it is asked for: once the offer is taken, the next one is there", async () => {
      const file = "src/lockers.ts";
      // Even a small model goes on with a list that counts.
      const lines = Array.from(
        { length: 12 },
        (_, index) => `export const LOCKER_${index + 1} = "locker-${index + 1}";`,
      );
      writeFileSync(path.join(workspace, file), `${lines.join("\n")}\n`);
      await editor.logEverything();
      await editor.openFile(file);
      const { keyboard } = editor.page;
      const ghost = editor.ghostText().first();
      await keyboard.press("Control+End");
      await keyboard.type("export const LOCKER_13 =", { delay: 30 });
      await ghost.waitFor({ timeout: slowMs });
      // Somebody reads it.
      await new Promise((resolve) => setTimeout(resolve, readingMs));
      const taken = await answerTo(() => keyboard.press("Tab"));
      // Where nothing is to be added to that line, the one below was begun.
      const next = taken.stats === null ? await answerTo(() => keyboard.press("Enter")) : taken;
      expect(next.stats).toMatchObject({ cached: true });
      expect(next.engineMs).toBeGreaterThan(0);
      await ghost.waitFor();
      expect(squeezed(await ghost.innerText())).not.toBe("");
      await editor.shot("next-offer");
      await editor.command("File: Revert File");
      rmSync(path.join(workspace, file));
    });

    test("the model writes the message of a commit, from the change and nothing else", async () => {
      const file = "src/config.ts";
      const before = editor.readFile(file);
      const line = "/** Days after which a parcel goes back to its sender. */\nexport const RETURN_AFTER_DAYS = 21;\n";
      writeFileSync(path.join(workspace, file), `${before}${line}`);
      git("add", file);
      const box = editor.page.locator(".scm-view .scm-editor .view-lines").first();
      const icon = editor.page.locator('a[aria-label^="Source Control"]');
      await editor.click(editor.page.locator(".activitybar .action-item", { has: icon }), shown(box));
      await editor.page.locator(".scm-view .monaco-list-row", { hasText: "config.ts" }).first().waitFor();
      const message = async (): Promise<string> => squeezed(await box.innerText());
      const isWritten = async (): Promise<boolean> => /\w{3}/.test(await message());
      await editor.click(editor.page.getByRole("button", { name: "Write Commit Message" }), isWritten, {
        eachMs: 60_000,
        withinMs: slowMs,
      });
      await expect.poll(async () => (await engineStatus()).activity.kind, { timeout: slowMs }).toBe("idle");
      expect(await message()).not.toContain("```");
      await editor.shot("commit-message");
      git("reset", "--quiet");
      writeFileSync(path.join(workspace, file), before);
    });

    test("a second window knows what was read, through the same engine", async () => {
      const [pid, alone] = [await enginePid(), (await engineStatus()).clients];
      const second = await editor.secondWindow();
      try {
        const item = second.locator(".statusbar .statusbar-item", { hasText: /Nosa: .*[\d.]+k tokens/ });
        await item.first().waitFor({ timeout: slowMs });
        expect((await engineStatus()).clients).toBe(alone + 1);
        expect(await enginePid()).toBe(pid);
      } finally {
        await second.close();
      }
      await expect.poll(async () => (await engineStatus()).clients, { timeout: slowMs }).toBe(alone);
    });

    test("a branch that is switched to is read by itself, and the way back costs nothing", async () => {
      const files = async (): Promise<number> => (await engineStatus()).context?.files ?? 0;
      const before = await files();
      git("checkout", "--quiet", "-b", "later");
      writeFileSync(
        path.join(workspace, "src/late.ts"),
        "/** Days after which a parcel is late. */\nexport const late = 9;\n",
      );
      git("add", "src/late.ts");
      commitAdded("Say what is late");
      await expect.poll(files, { timeout: slowMs }).toBe(before + 1);
      git("checkout", "--quiet", "main");
      await expect.poll(files, { timeout: slowMs }).toBe(before);
      await expect.poll(async () => (await engineStatus()).activity.kind, { timeout: slowMs }).toBe("idle");
      await read(/Nosa knows parcel-desk already/);
    });

    test("after a restart of the engine everything read is still known", async () => {
      await restart();
      // fees.ts was changed above, so its segment may be read anew; the rest is not.
      const [whole = 0, tokensRead = 0] = tokensIn(await read());
      expect(tokensRead).toBeLessThan(whole / 2);
      await editor.shot("restarted");
    });

    test("a question right after a restart is answered, with a file open that has changed meanwhile", async () => {
      const file = "src/fees.ts";
      const line = "// Whoever collects the parcel pays.";
      await editor.openFile(file);
      await editor.page.keyboard.press("Control+End");
      await editor.page.keyboard.type(`\n${line}`, { delay: 15 });
      await until(
        () => editor.readFile(file).includes(line),
        () => editor.page.keyboard.press("Control+S"),
      );
      await restart();
      // The editor's chat only offers the file that is open; it is not in the question.
      const answer = await editor.chat("@nosa What does a parcel cost?");
      await editor.answered(answer, slowMs);
      expect(await answer.locator(".rendered-markdown").first().innerText()).toMatch(/\w+ \w+/);
      await editor.shot("asked-after-restart");
      const { context, memory } = await engineStatus();
      expect(context?.attendedBlocks).toBeGreaterThan(0);
      expect(context?.attendedBlocks).toBeLessThan(context?.totalBlocks ?? 0);
      expect(memory.diskBytesRead, "what is attended to comes from disk").toBeGreaterThan(0);
      expect(memory.bytes).toBeLessThan(memory.bytesMax);
    });
  });

  test("the engine leaves after its last client", async () => {
    await editor.close();
    await expect.poll(enginePid, { timeout: slowMs }).toBeUndefined();
  });
});

/** Has the repository read; gives what was said in the end. */
async function read(said = /Nosa (knows parcel-desk already|has read parcel-desk)/): Promise<string> {
  await editor.clearNotifications();
  const done = editor.notification(said).first();
  const progress = editor.notification(/Reading parcel-desk/);
  const begun = async (): Promise<boolean> => (await shown(progress)()) || shown(done)();
  await editor.command("Nosa: Index Repository", begun);
  await done.waitFor({ timeout: slowMs });
  return done.innerText();
}

/** Asks in our own view. Gives the answer's place as soon as there is one. */
async function ask(question: string): Promise<Locator> {
  const view = editor.webview();
  const box = view.getByPlaceholder("Ask about the repository");
  await editor.command("Nosa: Ask Nosa", shown(box));
  const answers = view.locator(".turn-assistant");
  const before = await answers.count();
  await until(
    async () => (await answers.count()) > before,
    async () => {
      await box.fill(question);
      await box.press("Enter");
    },
    { eachMs: 15_000 },
  );
  return answers.nth(before);
}

interface Answered {
  /** 0 where the engine was not asked, as an offer followed the typing. */
  readonly engineMs: number;
  /** Of the engine; null where it offered nothing. */
  readonly stats: { readonly cached: boolean } | null;
}

/** What the log says of each completion so far. */
function completions(): readonly Answered[] {
  return editor.log().flatMap((line) => {
    const [, json] = /\[debug\] Completion: (\{.*\})$/.exec(line.trimEnd()) ?? [];
    return json === undefined ? [] : [JSON.parse(json) as Answered];
  });
}

/** What the first completion after a key came to. */
async function answerTo(press: () => Promise<void>): Promise<Answered> {
  const before = completions().length;
  await press();
  await expect.poll(() => completions().length, { timeout: slowMs }).toBeGreaterThan(before);
  return completions()[before] ?? { engineMs: 0, stats: null };
}

async function restart(): Promise<void> {
  const before = await enginePid();
  const another = async (): Promise<boolean> => {
    const now = await enginePid();
    return now !== undefined && now !== before;
  };
  await editor.command("Nosa: Restart Engine", another, { eachMs: 30_000 });
}

function git(...args: readonly string[]): void {
  execFileSync("git", args, { cwd: workspace });
}

function commitAdded(message: string): void {
  git("-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "--quiet", "--message", message);
}

/** What the engine says of the sample, over a connection of the test's own. */
async function engineStatus(): Promise<
  Pick<EngineStatus, "activity" | "clients" | "memory"> & { readonly context: ContextStatus | undefined }
> {
  const lock = await readLock(dataPaths(engineHome).lock);
  if (lock === undefined) throw new Error("No engine runs.");
  const client = await EngineTestClient.open(lock.address);
  try {
    const settings = { ...defaultSettings, model, memoryGigabytes };
    await client.introduce({ protocolVersion, token: lock.token, client: "test", settings });
    const { activity, clients, contexts, memory } = await client.request("nosa/status", {});
    return { context: contexts.find(({ root }) => root === workspace), activity, clients, memory };
  } finally {
    client.dispose();
  }
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

/** Of this story, as its lock file says; undefined when none runs. */
async function enginePid(): Promise<number | undefined> {
  const lock = await readLock(dataPaths(engineHome).lock);
  return lock !== undefined && isAlive(lock.pid) ? lock.pid : undefined;
}

function engineLogs(): string {
  const { logs } = dataPaths(engineHome);
  if (!existsSync(logs)) return "";
  return readdirSync(logs)
    .map((name) => readFileSync(path.join(logs, name), "utf8"))
    .join("\n");
}
