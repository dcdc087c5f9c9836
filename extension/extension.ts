import { Uri, chat, commands, lm, window, workspace, type ExtensionContext } from "vscode";
import { ChatParticipant } from "./chatParticipant";
import { Chat } from "./chatView/chat";
import { ChatViewProvider } from "./chatView/provider";
import { EngineClient } from "./client";
import { registerCommands } from "./commands";
import {
  hintOfOthers,
  LastAnswer,
  snoozeCompletions,
  toggleCompletions,
  toggleLanguage,
} from "./completions/commands";
import { CompletionMiddleware } from "./completions/middleware";
import { Snooze } from "./completions/snooze";
import { ContextTreeView } from "./contextView";
import { forgetChosen } from "./forget";
import { Indexing } from "./indexing";
import { LanguageModel } from "./languageModel";
import { showMenu } from "./menu";
import { Models } from "./models";
import { report } from "./report";
import { folders, rootOf } from "./roots";
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
    // Read when it is called: the engine's client is made below, with this middleware in it.
    isReady: () => (engine.status?.model ?? null) !== null,
    nowMs: () => performance.now(),
    pause,
    onError: (error) => log.warn(`No completion: ${error.message}`),
    onAnswer: (stats, totalMs) => lastAnswer.keep(stats, totalMs),
  });
  const engine: EngineClient = new EngineClient({
    engineFile: context.asAbsolutePath("dist/engine.js"),
    log,
    middleware: { provideInlineCompletionItems: completions.provideInlineCompletionItems },
    settings: readSettings,
  });
  const conversation = new Chat(engine, log);
  const chatView = new ChatViewProvider({
    extensionUri: context.extensionUri,
    engine,
    chat: conversation,
    report: tell,
  });
  const indexing = new Indexing(engine, log);
  const models = new Models(engine);
  const statusBar = new StatusBar({ engine, roots, completionsEnabled });
  const contextTree = new ContextTreeView(engine);
  own.push(log, engine, conversation, chatView, statusBar, contextTree);

  own.push(
    window.registerWebviewViewProvider(ChatViewProvider.viewId, chatView),
    workspace.onDidChangeWorkspaceFolders(() => statusBar.refresh()),
    onSettingsChanged((settings) => {
      statusBar.refresh();
      engine.configure(settings).catch((error: unknown) => log.error(String(error)));
    }),
    registerCommands(
      {
        "nosa.indexRepository": () => indexing.indexChosen(),
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
        "nosa.clearChat": () => chatView.clear(),
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
    own.push(new ChatParticipant(engine, log, Uri.joinPath(context.extensionUri, "media", "icons", "icon.png")));
  }

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

function hasChatParticipants(): boolean {
  const found: Partial<typeof chat> | undefined = chat;
  return found?.createChatParticipant !== undefined;
}
