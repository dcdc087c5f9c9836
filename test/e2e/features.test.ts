/**
 * What a person does beside asking: slash commands, attached files, code applied after a look, chats that are kept,
 * pins, the context map, budgets, the list of models, `#repo`, in a real VS Code with a scripted engine. What the engine
 * was asked is read from its record, what ended up in the workspace from disk.
 *
 * Pictures of each step are kept in test-results/features/.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { Locator } from "playwright-core";
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { gone, shown, tryMs, until, type Editor } from "./harness";
import { busyMs, commit, Scene } from "./scene";

const scene = new Scene("features");
const workspace = scene.copyOf("parcel-desk");
let editor: Editor;

beforeAll(async () => {
  commit(workspace);
  editor = await scene.open({ workspace, stepMs: 25 });
});

describe.sequential("beside asking", () => {
  test("indexing is paused and resumed by commands", async () => {
    const said = (text: RegExp): (() => Promise<boolean>) => shown(editor.notification(text));
    scene.hold();
    await editor.command("Nosa: Index Repository", said(/Reading parcel-desk/));
    await editor.command("Nosa: Pause Indexing", said(/Paused\. What was read of parcel-desk is kept/));
    scene.release();
    await editor.command("Nosa: Resume Indexing", said(/Nosa has read parcel-desk/), { eachMs: 20_000 });
    await editor.statusBarItem(/k tokens/).waitFor();
  });

  describe("of a repository that was read", () => {
    beforeEach(() => scene.read());

    test("a slash is answered with the list of commands, which keys alone can use", async () => {
      await scene.showChat();
      const { box } = scene;
      const options = editor.webview().getByRole("option");
      await until(shown(options.nth(6)), async () => {
        await box.fill("");
        await box.pressSequentially("/");
      });
      await box.pressSequentially("im");
      await expect.poll(() => options.count()).toBe(1);
      await editor.shot("slash-list");
      await box.press("Enter");
      await expect.poll(() => box.inputValue()).toBe("/impact ");
      await box.fill("");
    });

    test("an attached file is pinned, not pasted, and is seen beside the question", async () => {
      await attach("src/fees.ts");
      const answer = await scene.ask("/explain");
      const { messages, pins } = scene.lastChat();
      expect(pins).toContainEqual({ path: "src/fees.ts", startLine: 0, endLine: 0 });
      expect(messages.at(-1)?.content).toContain("Explain src/fees.ts");
      expect(messages.at(-1)?.content).not.toContain("storageFee");
      await questions().last().locator(".chip", { hasText: "src/fees.ts" }).waitFor();
      await scene.whole(answer);
    });

    test("the code under the cursor is documented: a look at the difference, then into the file, one undo away", async () => {
      await askedAtCursor("Nosa: Write Documentation Comment");
      const { messages, pins } = scene.lastChat();
      expect(pins).toContainEqual({ path: "src/fees.ts", startLine: 22, endLine: 24 });
      expect(messages.at(-1)?.content).toContain("`formatCents` in src/fees.ts");
      const difference = editor.page.locator(".tab", { hasText: "change from Nosa" });
      await editor.click(previewButton(), shown(difference));
      await editor.page
        .locator(".diff-editor .line-insert, .editor.modified .view-line", { hasText: "whole units" })
        .first()
        .waitFor();
      await editor.shot("difference");
      expect(editor.readFile("src/fees.ts")).not.toContain("whole units");
      await editor.click(applyButton(), gone(difference));
      const saved = (): boolean => editor.readFile("src/fees.ts").includes("whole units stand before the point");
      await until(saved, () => editor.page.keyboard.press("Control+S"));
      const text = editor.readFile("src/fees.ts");
      expect(text.match(/function formatCents/g)).toHaveLength(1);
      expect(text).not.toContain('/** "3.75" for 375. */');
      expect(text).toContain("export function storageFee");
    });

    test("tests that are asked for become a file where the repository keeps its tests", async () => {
      await askedAtCursor("Nosa: Write Tests");
      await editor.click(previewButton(), shown(editor.page.locator(".tab", { hasText: "new, from Nosa" })));
      await editor.click(applyButton(), () => existsSync(path.join(workspace, "test/fees.test.ts")));
      expect(editor.readFile("test/fees.test.ts")).toContain("formatCents(375)");
      await editor.page
        .locator('.editor-instance .monaco-editor.focused[data-uri$="/test/fees.test.ts"]')
        .first()
        .waitFor();
    });

    test("the working diff is reviewed, with what it changes pinned", async () => {
      const changed = path.join(workspace, "src/config.ts");
      writeFileSync(changed, `${editor.readFile("src/config.ts")}// Asked to be reviewed.\n`);
      const answer = await scene.askedBy(() => editor.command("Nosa: Review Changes"));
      const { messages, pins } = scene.lastChat();
      expect(messages.at(-1)?.content).toContain("+// Asked to be reviewed.");
      expect(pins).toContainEqual({ path: "src/config.ts", startLine: 0, endLine: 0 });
      await scene.whole(answer);
    });

    test("a question is asked differently in a chat of its own, and the old one is kept", async () => {
      await scene.showChat();
      await editor.command("Nosa: New Chat", async () => (await questions().count()) === 0);
      await scene.whole(await scene.ask("What is a parcel?"));
      await scene.whole(await scene.ask("/explain src/fees.ts"));
      await scene.whole(await scene.ask("Where is it tested?"));
      const before = await keptChats();
      const again = questions()
        .nth(1)
        .getByRole("button", { name: /Ask differently/ });
      await editor.click(again, async () => (await questions().count()) === 1);
      await expect.poll(() => scene.box.inputValue()).toBe("/explain src/fees.ts");
      await scene.whole(await scene.ask("And the other one?"));
      const { messages } = scene.lastChat();
      expect(messages.map(({ role }) => role)).toEqual(["user", "assistant", "user"]);
      expect(await keptChats()).toBe(before + 1);
      const old = chatRows().nth(2);
      await until(
        async () => (await questions().count()) === 3,
        async () => {
          await listChats();
          await editor.shot("chats");
          await old.click({ timeout: tryMs });
        },
      );
    });

    test("@nosa has the same commands, offers its code, and says what may be asked next", async () => {
      await editor.openFile("src/fees.ts");
      const answer = await editor.chat("@nosa /docs formatCents in src/fees.ts");
      await answer.getByText("Preview in fees.ts").waitFor();
      await answer.getByText("whole units stand before the point").waitFor();
      await answer.locator(".chat-inline-anchor-widget").first().waitFor();
      await editor.page.getByText("/explain README.md").first().waitFor();
      const { messages, pins } = scene.lastChat();
      expect(messages.at(-1)?.content).toContain("Write a documentation comment");
      expect(pins).toContainEqual({ path: "src/fees.ts", startLine: 0, endLine: 0 });
    });

    test("files are pinned, excluded and read anew from the tree, and budgets stand above it", async () => {
      await editor.command("View: Close All Editors");
      const tree = await scene.treeAlone();
      await tree.filter({ hasText: "In memory" }).waitFor();
      await tree.filter({ hasText: /61 MB of 2 GB/ }).waitFor();
      await pinReadme(tree);
      await editor.shot("pinned");
      const folder = tree.filter({ hasText: "tools" });
      const reread = (): boolean => JSON.stringify(scene.lastIndex()?.reread) === '["tools/"]';
      await editor.clickInMenu(folder, "Read Anew", reread);
      const settings = path.join(workspace, ".vscode/settings.json");
      const excluded = (): boolean => existsSync(settings) && readFileSync(settings, "utf8").includes('"tools/**"');
      await editor.clickInRow(folder, "Exclude from Context", excluded);
      await editor.shot("excluded");
      await scene.whole(await scene.ask("What is pinned?"));
      expect(scene.lastChat().pins).toContainEqual({ path: "README.md", startLine: 0, endLine: 0 });
    });

    describe("and asked about", () => {
      beforeEach(answeredOnce);

      test("the context map draws every file, lit by the last answer, and leads to the lines by keys alone", async () => {
        const map = await contextMap();
        await map.locator(".file").nth(10).waitFor();
        expect(await map.locator(".file.is-lit").count()).toBeGreaterThan(5);
        await expect.poll(() => editor.panel().locator(".gauge").count()).toBe(3);
        const focused = map.locator(".file:focus");
        await until(shown(focused), () => map.locator(".file[tabindex='0']").focus({ timeout: tryMs }));
        await focused.press("ArrowDown");
        await focused.press("ArrowRight");
        await editor.shot("map");
        const label = (await focused.getAttribute("aria-label")) ?? "";
        const [file = ""] = label.split(" · ");
        expect(existsSync(path.join(workspace, file))).toBe(true);
        const opened = editor.page.locator(`.editor-instance .monaco-editor[data-uri$="/${file}"]`);
        await until(shown(opened), () => focused.press("Enter", { timeout: tryMs }));
      });

      test.each([
        ["Dark Modern", "vscode-dark"],
        ["Light Modern", "vscode-light"],
        ["Dark High Contrast", "vscode-high-contrast"],
        ["Light High Contrast", "vscode-high-contrast-light"],
      ])("both pages can be read in %s", async (theme, kind) => {
        await editor.theme(theme);
        const map = await contextMap();
        for (const page of [editor.panel(), editor.webview()]) {
          await page.locator(`body[data-vscode-theme-kind="${kind}"]`).waitFor();
        }
        const lit = map.locator(".file.is-lit :is(.file-name, .file-share)");
        await lit.first().waitFor();
        const read = [
          ...(await lit.all()),
          map.locator(".file:not(.is-lit) .file-name").first(),
          editor.webview().locator(".turn-body p").last(),
          editor.webview().locator(".reference-label").last(),
          editor.webview().locator(".footnote").last(),
        ];
        for (const text of read) await expect.poll(() => contrastOf(text)).toBeGreaterThan(4.5);
      });

      test("chats and pins outlive a reload of the window", async () => {
        await pinReadme(await scene.treeAlone());
        await scene.showChat();
        while ((await questions().count()) < 4) await scene.whole(await scene.ask("What goes on?"));
        const before = await questions().allInnerTexts();
        await editor.page.reload();
        await editor.statusBarItem(/Nosa: .*k tokens/).waitFor({ timeout: busyMs });
        await scene.showChat();
        await expect.poll(() => questions().allInnerTexts(), { timeout: busyMs }).toEqual(before);
        await scene.whole(await scene.ask("Still there?"));
        expect(scene.lastChat().pins).toContainEqual({ path: "README.md", startLine: 0, endLine: 0 });
      });
    });
  });

  test("a model's download is paused, goes on, and is deleted, in the list", async () => {
    const list = editor.page.locator(".quick-input-widget:visible");
    const large = list.locator(".monaco-list-row", { hasText: "1.5B" });
    const says = (text: RegExp): (() => Promise<boolean>) => shown(large.filter({ hasText: text }));
    // The list closes when the window loses the focus, and is drawn anew while something arrives.
    const press = (button: string | RegExp, effect: () => Promise<boolean>): Promise<void> =>
      until(effect, async () => {
        await editor.command("Nosa: Select Model", shown(large));
        await large.hover({ timeout: tryMs });
        await large.getByRole("button", { name: button }).click({ timeout: tryMs });
      });
    scene.hold();
    await press("Download, or go on with it", says(/1\.5B.*% · /));
    await editor.shot("downloading");
    await press(/^Pause/, says(/1\.5B.*paused, .* have arrived/));
    await press("Download, or go on with it", says(/1\.5B.*% · /));
    await press(/^Pause/, says(/1\.5B.*paused, .* have arrived/));
    const dialog = editor.page.locator(".monaco-dialog-box");
    await press("Delete from this machine", shown(dialog));
    const deleted = editor.notification(/1\.5B is deleted; .* freed/);
    await editor.click(dialog.getByRole("button", { name: "Delete" }), shown(deleted));
  });

  test("the self-test says what works, as a document", async () => {
    const works = editor.page.locator(".view-line", { hasText: "Everything works." });
    await editor.command("Nosa: Run Self-Test", shown(works), { eachMs: 20_000 });
    await editor.page.locator(".view-line", { hasText: "The model answers" }).first().waitFor();
  });
});

function questions(): Locator {
  return editor.webview().locator(".turn-user");
}

function previewButton(): Locator {
  return editor.webview().getByRole("button", { name: "Preview the change" }).last();
}

function applyButton(): Locator {
  return editor.page.getByRole("button", { name: /^Apply Change/ });
}

/** Puts a file beside the next question, by the sign for it. */
async function attach(file: string): Promise<void> {
  await scene.showChat();
  const list = editor.page.locator(".quick-input-widget:visible");
  const input = list.locator("input.input").first();
  const chip = editor.webview().locator(".composer .chip", { hasText: file });
  await until(shown(chip), async () => {
    if (!(await shown(input)())) {
      await scene.box.fill("");
      await scene.box.pressSequentially("#");
    }
    await input.fill(path.basename(file), { timeout: tryMs });
    await list.locator(".monaco-list-row.focused", { hasText: file }).waitFor({ timeout: tryMs });
    await input.press("Enter", { timeout: tryMs });
  });
}

/** Has a command ask about the function that the cursor is in, and waits for the whole answer. */
async function askedAtCursor(command: string): Promise<void> {
  await editor.placeCursor("src/fees.ts", "padStart");
  // Until the language's own service has looked at the file, nobody knows where the function begins.
  await editor.page.locator(".monaco-breadcrumb-item", { hasText: "formatCents" }).first().waitFor();
  await scene.whole(await scene.askedBy(() => editor.command(command)));
}

function chatRows(): Locator {
  return editor.page.locator(".quick-input-widget:visible .monaco-list-row");
}

async function listChats(): Promise<void> {
  await editor.command("Nosa: Show Chats", shown(chatRows().filter({ hasText: "New chat" })));
}

/** How many conversations are kept. */
async function keptChats(): Promise<number> {
  await listChats();
  const rows = await chatRows().count();
  await editor.clear();
  // The first offers a new one.
  return rows - 1;
}

async function pinReadme(tree: Locator): Promise<void> {
  const row = tree.filter({ hasText: "README.md" });
  await editor.clickInRow(row, "Pin in Context", shown(row.filter({ hasText: /README\.md.*pinned/ })));
}

/** Both pages show an answer. */
async function answeredOnce(): Promise<void> {
  await scene.whole(await scene.ask("How does it work?"));
}

/** The map, in front of the other editors. */
async function contextMap(): Promise<Locator> {
  const map = editor.panel().locator(".map");
  await editor.command("Nosa: Show Context Map", async () => (await editor.showsPanel()) && shown(map)());
  return map;
}

/** Contrast of a text against what is painted behind it, as WCAG 2 defines it. */
function contrastOf(text: Locator): Promise<number> {
  return text.evaluate((element) => {
    type Colour = readonly [number, number, number, number];
    const parse = (value: string): Colour => {
      const numbers = (value.match(/[\d.]+/g) ?? []).map(Number);
      // "color(srgb 0.1 0.2 0.3 / 0.5)" counts from 0 to 1, "rgb(1 2 3)" to 255.
      const scale = value.startsWith("color") ? 255 : 1;
      const [r = 0, g = 0, b = 0, alpha = 1] = numbers;
      return [r * scale, g * scale, b * scale, alpha];
    };
    const over = (top: Colour, under: Colour): Colour => {
      const mix = (a: number, b: number): number => a * top[3] + b * (1 - top[3]);
      return [mix(top[0], under[0]), mix(top[1], under[1]), mix(top[2], under[2]), 1];
    };
    const behind = (from: Element | null): Colour => {
      if (from === null) return [255, 255, 255, 1];
      const before = getComputedStyle(from, "::before");
      const [r, g, b, alpha] = parse(before.backgroundColor);
      const light: Colour = before.content === "none" ? [0, 0, 0, 0] : [r, g, b, alpha * Number(before.opacity)];
      return over(light, over(parse(getComputedStyle(from).backgroundColor), behind(from.parentElement)));
    };
    const luminance = ([r, g, b]: Colour): number => {
      const linear = [r, g, b].map((value) => {
        const part = value / 255;
        return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
      });
      return 0.2126 * (linear[0] ?? 0) + 0.7152 * (linear[1] ?? 0) + 0.0722 * (linear[2] ?? 0);
    };
    const ground = behind(element);
    const [a, b] = [luminance(over(parse(getComputedStyle(element).color), ground)), luminance(ground)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  });
}
