import { Uri, chat, commands, lm, window, workspace, type ExtensionContext } from "vscode";
import { Proposals, parseCodeToApply } from "./apply/proposals";
import { Attention } from "./attention";
import { setBudgets } from "./budgets";
import { ChatParticipant } from "./chatParticipant";
import { Chat } from "./chatView/chat";
import { ChatHistory } from "./chatView/history";
import { ChatViewProvider } from "./chatView/provider";
import { EngineClient } from "./client";
import { CodeActions } from "./codeActions";
import { registerCommands } from "./commands";
import { hintOfOthers, LastAnswer, snoozeCompletions, toggleCompletions, toggleLanguage } from "./completions/commands";
import { showsDifferenceOf } from "./completions/diffEditor";
import { Cursor } from "./completions/cursor";
import { CompletionMiddleware } from "./completions/middleware";
import { Pinned } from "./completions/pinned";
import { Snooze } from "./completions/snooze";
import { CommitMessage } from "./commitMessage";
import { ContextActions } from "./contextActions";
import { ContextKeys } from "./contextKeys";
import { ContextMap } from "./contextMap/panel";
import { ContextTreeView } from "./contextView";
import { forgetChosen } from "./forget";
import { Indexing } from "./indexing";
import { LanguageModel } from "./languageModel";
import { showMenu } from "./menu";
import { Models } from "./models";
import { PinnedLines } from "./pinnedLines";
import { Pins } from "./pins";
import { RepoTool } from "./repoTool";
import { report } from "./report";
import { currentFolder, folders, rootOf } from "./roots";
import { selfTest } from "./selfTest";
import { onSettingsChanged, readSettings } from "./settings";
import { StatusBar } from "./statusBar";
import { pause } from "./util/pause";

/**
 * Builds the parts, in order; the editor disposes them in the reverse one. The engine is looked for in the background:
 * nothing here waits for it.
 */
export function activate(context: ExtensionContext): void {
  const startedAtMs = performance.now();
  const own = context.subscriptions;
  const log = window.createOutputChannel("Nosa", { log: true });
  const tell = (error: unknown): void => void report(error, log);
  const roots = (): readonly string[] => folders().map(rootOf);
  const completionsEnabled = (): boolean => readSettings().completions.enabled;

  const snooze = new Snooze(Date.now);
  const lastAnswer = new LastAnswer();
  const completions = new CompletionMiddleware({
    settings: () => readSettings().completions,
    quiet: () => snooze.active,
    isCompared: ({ uri }) => showsDifferenceOf(window.tabGroups.activeTabGroup.activeTab, uri.toString()),
    // Read when it is called: the engine's client is made below, with this middleware in it.
    isReady: () => (engine.status?.model ?? null) !== null,
    nowMs: () => performance.now(),
    pause,
    onError: (error) => log.warn(`No completion: ${error.message}`),
    onAnswer: (stats, totalMs, engineMs) => {
      lastAnswer.keep(stats, totalMs);
      log.debug(`Completion: ${JSON.stringify({ totalMs, engineMs, stats: stats ?? null })}`);
    },
  });
  const engine: EngineClient = new EngineClient({
    engineFile: context.asAbsolutePath("dist/engine.js"),
    log,
    middleware: { provideInlineCompletionItems: completions.provideInlineCompletionItems },
    settings: readSettings,
  });
  const cursor = new Cursor({
    isAnswered: (document) => completions.answersTyping(document),
    nowMs: () => performance.now(),
    onNear: ({ uri }, { line, character }) => {
      // Nobody waits for it.
      engine.request("nosa/prepare", { uri: uri.toString(), line, character }).catch(() => undefined);
    },
  });
  const { extensionUri } = context;
  const contextTokensMax = (): number => readSettings().contextTokensMax;
  const pins = new Pins(context.workspaceState);
  const attention = new Attention();
  const history = new ChatHistory(context.workspaceState);
  const proposals = new Proposals();
  const conversation = new Chat({ engine, pins, attention, history, log, nowMs: Date.now });
  const chatView = new ChatViewProvider({ extensionUri, engine, chat: conversation, history, proposals, report: tell });
  const codeActions = new CodeActions(conversation, chatView);
  const indexing = new Indexing(engine, log);
  const models = new Models(engine, tell);
  const statusBar = new StatusBar({ engine, roots, completionsEnabled });
  const contextTree = new ContextTreeView({ engine, pins, contextTokensMax });
  const contextActions = new ContextActions({ engine, pins, indexing });
  const commitMessage = new CommitMessage(engine);
  const contextMap = new ContextMap({ extensionUri, engine, attention, pins, contextTokensMax, report: tell });
  const pinned = new Pinned({
    engine,
    pins,
    roots,
    onError: (error) => log.info(`Pins were not told: ${String(error)}`),
  });
  own.push(
    log,
    engine,
    cursor,
    pins,
    pinned,
    new PinnedLines(pins, extensionUri),
    attention,
    proposals,
    conversation,
    chatView,
    models,
    statusBar,
    contextTree,
    contextMap,
    commitMessage,
    new ContextKeys(engine, roots),
  );

  own.push(
    window.registerWebviewViewProvider(ChatViewProvider.viewId, chatView),
    window.onDidChangeTextEditorSelection(({ textEditor }) => {
      if (textEditor === window.activeTextEditor) cursor.moved(textEditor);
    }),
    window.onDidChangeActiveTextEditor((textEditor) => textEditor && cursor.moved(textEditor)),
    workspace.onDidChangeWorkspaceFolders(() => {
      statusBar.refresh();
      pinned.tell();
    }),
    onSettingsChanged((settings) => {
      statusBar.refresh();
      engine.configure(settings).catch((error: unknown) => log.error(String(error)));
    }),
    registerCommands(
      {
        "nosa.indexRepository": () => indexing.indexChosen(),
        "nosa.rereadRepository": () => indexing.rereadChosen(),
        "nosa.pauseIndexing": () => indexing.pause(),
        "nosa.resumeIndexing": () => indexing.resume(),
        "nosa.ask": () => commands.executeCommand(`${ChatViewProvider.viewId}.focus`),
        "nosa.toggleCompletions": () => toggleCompletions(),
        "nosa.toggleCompletionsForLanguage": () => toggleLanguage(),
        "nosa.snoozeCompletions": () => snoozeCompletions(snooze),
        "nosa.showCompletionStats": () => lastAnswer.show(),
        "nosa.completionAccepted": () => hintOfOthers(context.globalState),
        "nosa.selectModel": () => models.select(),
        "nosa.downloadModel": () => models.downloadRecommended(),
        "nosa.forgetRepository": () => forgetChosen(engine),
        "nosa.restartEngine": () => engine.restart(),
        "nosa.showLog": () => log.show(),
        "nosa.showStatus": () => showMenu(engine, roots(), completionsEnabled()),
        "nosa.selfTest": () => selfTest(engine),
        "nosa.setBudgets": () => setBudgets(engine),
        "nosa.clearChat": () => chatView.clear(),
        "nosa.showChats": () => chatView.showHistory(),
        "nosa.explain": () => codeActions.ask("explain"),
        "nosa.impact": () => codeActions.ask("impact"),
        "nosa.writeTests": () => codeActions.ask("tests"),
        "nosa.fix": () => codeActions.ask("fix"),
        "nosa.document": () => codeActions.ask("docs"),
        "nosa.reviewChanges": () => codeActions.ask("review"),
        "nosa.addToChat": (what) => codeActions.attach(what),
        "nosa.previewCode": (what) =>
          proposals.preview(parseCodeToApply(what), currentFolder(engine.status?.contexts ?? [])),
        "nosa.applyChange": (what) => proposals.apply(what instanceof Uri ? what : undefined),
        "nosa.discardChange": (what) => proposals.discard(what instanceof Uri ? what : undefined),
        "nosa.showContextMap": () => contextMap.show(),
        "nosa.pin": (what) => contextActions.pin(what),
        "nosa.unpin": (what) => contextActions.unpin(what),
        "nosa.pinLines": () => contextActions.pinLines(),
        "nosa.unpinLines": () => contextActions.unpinLines(),
        "nosa.commitMessage": (what) => commitMessage.write(what),
        "nosa.exclude": (what) => contextActions.exclude(what),
        "nosa.include": (what) => contextActions.include(what),
        "nosa.reread": (what) => contextActions.reread(what),
        "nosa.refreshContext": () => contextTree.refresh(),
        "nosa.openSettings": () => commands.executeCommand("workbench.action.openSettings", "@ext:nosa.nosa"),
      },
      tell,
    ),
  );

  // Editors derived from VS Code may lack the chat interfaces; our own view works everywhere.
  if (hasLanguageModels()) {
    const model = new LanguageModel(engine, log);
    own.push(model);
    model.resolve().catch((error: unknown) => log.warn(`The editor did not list our model: ${String(error)}`));
  }
  if (hasChatParticipants()) {
    const icon = Uri.joinPath(extensionUri, "media", "icons", "icon.png");
    own.push(new ChatParticipant({ engine, pins, attention, log, icon }));
  }
  if (hasTools()) own.push(new RepoTool(engine));

  engine.start();
  log.info(`Nosa ${packageVersion(context)} is active after ${Math.round(performance.now() - startedAtMs)} ms.`);
}

function packageVersion(context: ExtensionContext): string {
  const manifest: unknown = context.extension.packageJSON;
  const hasVersion = typeof manifest === "object" && manifest !== null && "version" in manifest;
  return hasVersion ? String(manifest.version) : "";
}

function hasLanguageModels(): boolean {
  const found: Partial<typeof lm> | undefined = lm;
  return found?.registerLanguageModelChatProvider !== undefined;
}

function hasTools(): boolean {
  const found: Partial<typeof lm> | undefined = lm;
  return found?.registerTool !== undefined;
}

function hasChatParticipants(): boolean {
  const found: Partial<typeof chat> | undefined = chat;
  return found?.createChatParticipant !== undefined;
}
