import type { CancellationToken, LogOutputChannel, Progress } from "vscode";
import * as vscode from "vscode";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { IndexProgress, IndexSummary } from "../../../engine/protocol";
import { plainFailure } from "../../../extension/errors";
import { Indexing } from "../../../extension/indexing";
import { ScriptedEngine } from "../../support/scriptedEngine";

const log = { info: () => undefined } as unknown as LogOutputChannel;
const shop = { name: "shop", uri: vscode.Uri.file("/code/shop"), index: 0 };
const desk = { name: "desk", uri: vscode.Uri.file("/code/desk"), index: 1 };
const summary: IndexSummary = {
  root: shop.uri.fsPath,
  files: 4,
  tokens: 1_000,
  tokensRead: 1_000,
  leftOut: 0,
  seconds: 3,
  complete: true,
};

let engine: ScriptedEngine;
let indexing: Indexing;
let cancel: vscode.CancellationTokenSource;
let told: string[];
let reports: { message?: string; increment?: number }[];

beforeEach(() => {
  engine = new ScriptedEngine();
  indexing = new Indexing(engine, log);
  cancel = new vscode.CancellationTokenSource();
  told = [];
  reports = [];
  vi.spyOn(vscode.workspace, "workspaceFolders", "get").mockReturnValue([shop]);
  vi.spyOn(vscode.window, "showInformationMessage").mockImplementation(async (text: string) => void told.push(text));
  vi.spyOn(vscode.commands, "executeCommand").mockResolvedValue(undefined);
  vi.spyOn(vscode.window, "withProgress").mockImplementation(((
    _options: unknown,
    run: (progress: Progress<object>, token: CancellationToken) => Promise<unknown>,
  ) => run({ report: (report) => reports.push(report) }, cancel.token)) as never);
});

afterEach(() => vi.restoreAllMocks());

function progressAt(tokensDone: number, root = shop.uri.fsPath): IndexProgress {
  const rest = { filesDone: 1, filesTotal: 4, tokensPerSecond: 300, secondsLeft: 2, path: "a.ts" };
  return { root, stage: "reading", tokensDone, tokensTotal: 1_000, ...rest };
}

describe("the command that reads a repository", () => {
  it("shows progress of its own folder alone, adding up to the whole", async () => {
    engine.answer = async () => {
      for (const tokens of [100, 500, 400, 1_000]) engine.progress.fire(progressAt(tokens));
      engine.progress.fire(progressAt(900, "/code/elsewhere"));
      return summary;
    };
    await indexing.indexChosen();
    expect(reports).toHaveLength(4);
    expect(reports.reduce((sum, report) => sum + (report.increment ?? 0), 0)).toBe(100);
    expect(told).toEqual(["Nosa has read shop: 4 files, 1k tokens (1k tokens read in 3 s)."]);
    expect(engine.requests).toEqual([{ method: "nosa/index", params: { root: "/code/shop", editorExcludes: {} } }]);
  });

  it("takes a reading that the user stopped for stopped, though the engine answers it", async () => {
    engine.answer = async () => {
      cancel.cancel();
      return { ...summary, complete: false };
    };
    await indexing.indexChosen();
    expect(told).toEqual(["Stopped. What was read of shop is kept, and is where it goes on."]);
  });

  it("asks which folder where there are several, and reads each in turn", async () => {
    vi.spyOn(vscode.workspace, "workspaceFolders", "get").mockReturnValue([shop, desk]);
    vi.spyOn(vscode.window, "showQuickPick").mockImplementation(
      (async (items: readonly unknown[]) => items[0]) as never,
    );
    engine.answer = async () => summary;
    await indexing.indexChosen();
    expect(engine.requests.map(({ params }) => params)).toMatchObject([{ root: "/code/shop" }, { root: "/code/desk" }]);
  });

  it("reads nothing when the user turns away, without trust, or without a folder", async () => {
    vi.spyOn(vscode.workspace, "workspaceFolders", "get").mockReturnValue([shop, desk]);
    vi.spyOn(vscode.window, "showQuickPick").mockResolvedValue(undefined);
    await indexing.indexChosen();
    vi.spyOn(vscode.workspace, "isTrusted", "get").mockReturnValue(false);
    await expect(indexing.indexChosen()).rejects.toMatchObject({ kind: "untrusted" });
    vi.spyOn(vscode.workspace, "isTrusted", "get").mockReturnValue(true);
    vi.spyOn(vscode.workspace, "workspaceFolders", "get").mockReturnValue(undefined);
    await expect(indexing.indexChosen()).rejects.toMatchObject({ kind: "noFolder" });
    expect(engine.requests).toEqual([]);
  });

  it("hands a failure on, and can be called again after it", async () => {
    engine.answer = () => Promise.reject(plainFailure("modelMissing"));
    await expect(indexing.indexChosen()).rejects.toMatchObject({ kind: "modelMissing" });
    engine.answer = async () => summary;
    await indexing.indexChosen();
    expect(told).toHaveLength(1);
  });

  it("does not read the same folder twice at once", async () => {
    let finish: (value: IndexSummary) => void = () => undefined;
    engine.answer = () => new Promise((resolve) => (finish = resolve));
    const first = indexing.indexChosen();
    await indexing.indexChosen();
    expect(told).toEqual(["Nosa is reading shop already."]);
    finish(summary);
    await first;
    expect(engine.requests).toHaveLength(1);
  });
});
