/**
 * A real VS Code with the packaged extension and the scripted engine, in a scratch folder that goes with the story: what
 * the engine was asked, where it is to stay in the middle of something, and what a test does first.
 */
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { Locator } from "playwright-core";
import { afterAll, afterEach, beforeEach, expect } from "vitest";
import { readLock } from "../../engine/lockFile";
import { dataPaths } from "../../engine/paths";
import type { ChatParams, IndexParams } from "../../engine/protocol";
import { isAlive } from "../../engine/util/isAlive";
import { inRoot } from "../../scripts/lib/paths.mjs";
import { vsixFile } from "../../scripts/package.mjs";
import { bundleFakeEngine } from "../support/fakeEngineBundle";
import { Editor, shown, until, type EditorOptions } from "./harness";

/** What an engine, or its answer, needs at the most on a machine that is busy. */
export const busyMs = 240_000;

/** Asking again while the first question is on its way would ask twice. */
const askAgainMs = 15_000;

interface Recorded {
  readonly method: string;
  readonly params: unknown;
}

export interface SceneOptions extends Pick<
  EditorOptions,
  "workspace" | "others" | "asksForTrust" | "settings" | "env"
> {
  /** Milliseconds of one step of anything that the engine takes time for. */
  readonly stepMs: number;
}

export class Scene {
  /** Everything of this story lies below. */
  readonly scratch: string;
  readonly #story: string;
  #editor: Editor | undefined;

  /** Each test begins with nothing over the window and leaves a picture; what was started ends with the last one. */
  constructor(story: string) {
    this.#story = story;
    this.scratch = realpathSync(mkdtempSync(path.join(tmpdir(), `nosa-${story}-`)));
    mkdirSync(this.#engineHome, { mode: 0o700 });
    writeFileSync(this.#record, "");
    beforeEach(() => this.editor.clear());
    afterEach(async ({ task }) => {
      this.release();
      const name = task.name.replaceAll(/\W+/g, "-").slice(0, 48);
      await this.editor.shot(task.result?.state === "fail" ? `failed-${name}` : name);
      if (task.result?.state === "fail") process.stderr.write(`${this.editor.logs()}\n`);
    });
    afterAll(() => this.#close());
  }

  get editor(): Editor {
    if (this.#editor === undefined) throw new Error("The editor did not open.");
    return this.#editor;
  }

  /** A copy of a sample repository. */
  copyOf(sample: string): string {
    const folder = path.join(this.scratch, sample);
    cpSync(inRoot("samples", sample), folder, { recursive: true });
    return folder;
  }

  async open({ stepMs, env, ...options }: SceneOptions): Promise<Editor> {
    const engineFile = path.join(this.scratch, "engine.js");
    await bundleFakeEngine(engineFile);
    const editor = await Editor.open({
      ...options,
      vsix: vsixFile,
      engineFile,
      story: this.#story,
      env: {
        ...env,
        NOSA_HOME: this.#engineHome,
        NOSA_FAKE_STEP_MS: String(stepMs),
        NOSA_FAKE_RECORD: this.#record,
        NOSA_FAKE_HOLD: this.#holdFile,
      },
    });
    this.#editor = editor;
    await editor.statusBarItem(/Nosa: .*nothing read/).waitFor({ timeout: busyMs });
    return editor;
  }

  /** From now on the engine stays in the middle of whatever takes time. */
  hold(): void {
    writeFileSync(this.#holdFile, "");
  }

  /** Lets it go on. */
  release(): void {
    rmSync(this.#holdFile, { force: true });
  }

  /** What the engine was asked, from the first on. */
  requests(method: string): readonly Recorded[] {
    // Behind the last line break stands nothing, or a line that is not whole yet.
    const lines = readFileSync(this.#record, "utf8").split("\n").slice(0, -1);
    return lines.map((line) => JSON.parse(line) as Recorded).filter((each) => each.method === method);
  }

  lastChat(): ChatParams {
    return this.requests("nosa/chat").at(-1)?.params as ChatParams;
  }

  lastIndex(): IndexParams | undefined {
    return this.requests("nosa/index").at(-1)?.params as IndexParams | undefined;
  }

  /** Says where the engine listens, and which process it is. */
  get lockFile(): string {
    return dataPaths(this.#engineHome).lock;
  }

  /** 0 when none runs. */
  async enginePid(): Promise<number> {
    return (await readLock(this.lockFile))?.pid ?? 0;
  }

  /** Where a question is written in our own view. */
  get box(): Locator {
    return this.editor.webview().getByRole("textbox");
  }

  /** Has the repository read, unless it is. */
  async read(): Promise<void> {
    const isRead = shown(this.editor.statusBarItem(/Nosa: .*k tokens/));
    if (await isRead()) return;
    await this.editor.command("Nosa: Index Repository", isRead, { eachMs: 20_000 });
    await this.editor.clearNotifications();
  }

  /** Rows of the context's tree, with the view above it closed: it draws what can be seen, and no more. */
  async treeAlone(): Promise<Locator> {
    const { page } = this.editor;
    const pane = page.locator(".pane", { has: page.getByRole("button", { name: "Context Section" }) });
    const rows = pane.locator(".monaco-list-row");
    await this.editor.command("Nosa: Focus on Context View", shown(rows));
    const chat = page.locator(".part.sidebar .pane-header", { hasText: "Chat" }).first();
    await this.editor.click(chat, async () => (await chat.getAttribute("aria-expanded")) === "false");
    return rows;
  }

  /** Our own view, open and drawn. */
  async showChat(): Promise<void> {
    await this.editor.command("Nosa: Ask Nosa", shown(this.box));
  }

  /** Asks in our own view. Gives the answer's place as soon as there is one. */
  ask(question: string): Promise<Locator> {
    return this.askedBy(async () => {
      await this.box.fill(question);
      // Closes the list of commands, so that Enter asks.
      if (question.startsWith("/")) await this.box.press("Escape");
      await this.box.press("Enter");
    });
  }

  /** The same for a question that is asked in another way. */
  async askedBy(act: () => Promise<unknown>): Promise<Locator> {
    await this.showChat();
    const answers = this.editor.webview().locator(".turn-assistant");
    const before = await answers.count();
    const asked = this.requests("nosa/chat").length;
    await until(() => this.requests("nosa/chat").length > asked, act, { eachMs: askAgainMs });
    await answers.nth(before).waitFor();
    return answers.nth(before);
  }

  /** Waits for the whole of an answer. */
  async whole(answer: Locator): Promise<void> {
    await expect.poll(() => answer.getAttribute("class"), { timeout: busyMs }).not.toContain("is-streaming");
    expect(await answer.getAttribute("class")).not.toContain("is-failed");
  }

  get #engineHome(): string {
    return path.join(this.scratch, "engine");
  }

  get #record(): string {
    return path.join(this.scratch, "record.jsonl");
  }

  get #holdFile(): string {
    return path.join(this.scratch, "hold");
  }

  async #close(): Promise<void> {
    await this.#editor?.close();
    const pid = await this.enginePid();
    // A test may have written its own process there.
    if (pid !== 0 && pid !== process.pid && isAlive(pid)) process.kill(pid);
    rmSync(this.scratch, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  }
}

/** A repository with one commit, as the working diff needs it. */
export function commit(folder: string): void {
  const git = (...args: readonly string[]): void => void execFileSync("git", args, { cwd: folder });
  git("init", "--quiet");
  git("add", ".");
  git("-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "--quiet", "-m", "Begin");
}
