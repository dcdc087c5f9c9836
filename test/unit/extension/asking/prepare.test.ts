import * as vscode from "vscode";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { innermost, pathsIn, prepare } from "../../../../extension/asking/prepare";
import { plainFailure } from "../../../../extension/errors";
import { Pins, wholeOf } from "../../../../extension/pins";
import { ScriptedEngine } from "../../../support/scriptedEngine";

const folder = { name: "shop", uri: vscode.Uri.file("/code/shop"), index: 0 };
const fresh = { kind: "fresh" } as const;

let engine: ScriptedEngine;
let pins: Pins;

beforeEach(() => {
  engine = new ScriptedEngine();
  engine.answer = (method) =>
    method === "nosa/context"
      ? Promise.resolve({
          files: [
            { path: "src/fees.ts", tokens: 9, state: fresh },
            { path: "src/old.ts", tokens: 9, state: { kind: "stale" } },
          ],
        })
      : Promise.resolve({});
  const store = new Map<string, unknown>();
  pins = new Pins({
    get: (key: string) => store.get(key) as never,
    update: (key: string, value: unknown) => Promise.resolve(void store.set(key, value)),
  });
  vi.spyOn(vscode.workspace, "workspaceFolders", "get").mockReturnValue([folder]);
  vi.spyOn(vscode.workspace, "openTextDocument").mockImplementation((async (uri: vscode.Uri) => ({
    uri,
    isDirty: uri.path.endsWith("dirty.ts"),
    languageId: "typescript",
    lineCount: 30,
    lineAt: () => ({ text: "0123456789" }),
    getText: () => "  first line\nsecond line",
  })) as never);
});

afterEach(() => vi.restoreAllMocks());

const plain = { command: undefined, text: "", references: [] } as const;

describe("preparing a question", () => {
  it("pins what the context holds, and shows the rest", async () => {
    const references = ["/code/shop/src/fees.ts", "/code/shop/src/old.ts", "/elsewhere/x.ts"].map((path) =>
      vscode.Uri.file(path),
    );
    const prepared = await prepare({ engine, pins }, { ...plain, text: "Compare.", references });
    expect(prepared.pins).toEqual([{ path: "src/fees.ts", startLine: 0, endLine: 0 }]);
    const { content } = prepared.message;
    expect(content.match(/```typescript/g)).toHaveLength(2);
    expect(content).not.toContain("src/fees.ts:\n```");
    expect(content).toContain("(This is about src/fees.ts, src/old.ts and");
  });

  it("pins the lines of a selection, by whole lines", async () => {
    // From the middle of line 3 to before the first character of line 7.
    const range = new vscode.Range(new vscode.Position(2, 4), new vscode.Position(6, 0));
    const references = [new vscode.Location(vscode.Uri.file("/code/shop/src/fees.ts"), range)];
    const prepared = await prepare({ engine, pins }, { ...plain, command: "explain", references });
    expect(prepared.pins).toEqual([{ path: "src/fees.ts", startLine: 3, endLine: 6 }]);
    expect(prepared.message.content).toContain("begins with `first line`");
    expect(prepared.attachments[0]?.label).toBe("src/fees.ts:3-6");
  });

  it("shows what was changed and not saved", async () => {
    engine.answer = () => Promise.resolve({ files: [{ path: "src/dirty.ts", tokens: 9, state: fresh }] });
    const references = [vscode.Uri.file("/code/shop/src/dirty.ts")];
    const prepared = await prepare({ engine, pins }, { ...plain, text: "Why?", references });
    expect(prepared.pins).toEqual([]);
    expect(prepared.message.content).toContain("second line");
  });

  it("takes files that the words name, and needs no other words", async () => {
    const prepared = await prepare({ engine, pins }, { ...plain, command: "impact", text: "src/fees.ts" });
    expect(prepared.pins).toEqual([{ path: "src/fees.ts", startLine: 0, endLine: 0 }]);
    expect(prepared.message.content.match(/src\/fees\.ts/g)).toHaveLength(1);
  });

  it("keeps in sight what is pinned for all questions", async () => {
    await pins.add("/code/shop", wholeOf("src/"));
    const prepared = await prepare({ engine, pins }, { ...plain, text: "Why?" });
    expect(prepared.pins).toEqual([{ path: "src/", startLine: 0, endLine: 0 }]);
  });

  it("asks about no repository until its workspace is trusted", async () => {
    vi.spyOn(vscode.workspace, "isTrusted", "get").mockReturnValue(false);
    await pins.add("/code/shop", wholeOf("src/"));
    const prepared = await prepare({ engine, pins }, { ...plain, text: "Why?" });
    expect(prepared).toMatchObject({ root: "", pins: [], folder: undefined });
    expect(engine.requests).toEqual([]);
    await expect(prepare({ engine, pins }, { ...plain, command: "review" })).rejects.toMatchObject({
      kind: "untrusted",
    });
  });

  it("can be asked before anything was read; the engine says what is missing", async () => {
    engine.answer = () => Promise.reject(plainFailure("notIndexed"));
    expect(await prepare({ engine, pins }, { ...plain, text: "Why?" })).toMatchObject({ root: "/code/shop", pins: [] });
  });

  it("says so when a command has nothing to be about", async () => {
    await expect(prepare({ engine, pins }, { ...plain, command: "fix" })).rejects.toMatchObject({
      kind: "nothingNamed",
    });
  });
});

describe("helpers", () => {
  it("finds paths among words, whatever stands around them", () => {
    const known = new Set(["src/a.ts", "README.md"]);
    expect(pathsIn("Compare #src/a.ts with `README.md`, (src/a.ts) and src/b.ts.", known)).toEqual([
      "src/a.ts",
      "README.md",
    ]);
    expect(pathsIn("", known)).toEqual([]);
  });

  it("takes the innermost declaration of several lines", () => {
    const symbol = (from: number, to: number, children: readonly unknown[] = []) =>
      ({ range: { start: { line: from }, end: { line: to } }, children }) as unknown as vscode.DocumentSymbol;
    const nested = symbol(0, 20, [symbol(2, 2), symbol(5, 9, [symbol(6, 6)])]);
    expect(innermost([nested], 6)?.start.line).toBe(5);
    expect(innermost([nested], 2)?.end.line).toBe(20);
    expect(innermost([nested], 30)).toBeUndefined();
    expect(innermost([symbol(3, 3)], 3)).toBeUndefined();
  });
});
