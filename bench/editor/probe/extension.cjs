// Lives beside the product in the extension host, for the benchmark: measures how long that host's main thread keeps others waiting, and prepares the
// documents that are typed into. Answers on the loopback address at the port in NOSA_PROBE_PORT.
const http = require("node:http");
const { monitorEventLoopDelay, performance } = require("node:perf_hooks");
const vscode = require("vscode");

let Lateness;
let lateness;
let histogram;

const actions = {
  /** Begins to measure. */
  start() {
    lateness?.stop();
    lateness = new Lateness({ performance, threadCpuUsage: process.threadCpuUsage?.bind(process) });
    histogram = monitorEventLoopDelay({ resolution: 1 });
    histogram.enable();
    return {};
  },

  /** Ends it: milliseconds. */
  stop() {
    histogram.disable();
    return { ...lateness.stop(), histogramP99: histogram.percentile(99) / 1e6, node: process.version };
  },

  /** Opens a file and takes lines out of it, counted from 0; the cursor stands at the beginning of the empty line that is left. */
  async cut({ path, startLine, endLine }) {
    const editor = await opened(path);
    const end = editor.document.lineAt(endLine - 1).range.end;
    const range = new vscode.Range(new vscode.Position(startLine, 0), end);
    await editor.edit((edit) => edit.delete(range));
    const at = new vscode.Position(startLine, 0);
    // Setting the selection would not wait for the page: the first keys would be written where the cursor was before.
    await vscode.window.showTextDocument(editor.document, { selection: new vscode.Range(at, at) });
    editor.revealRange(new vscode.Range(at, at), vscode.TextEditorRevealType.InCenter);
    return {};
  },

  /** What stands between the beginning of a line, counted from 0, and the cursor. */
  typed({ startLine }) {
    const { document, selection } = vscode.window.activeTextEditor;
    return { text: document.getText(new vscode.Range(new vscode.Position(startLine, 0), selection.active)) };
  },

  /** Asks our model as any extension may: milliseconds to the first part of its answer, which is stopped then. */
  async model({ question, tools }) {
    const [ours] = await vscode.lm.selectChatModels({ vendor: "nosa" });
    const messages = [vscode.LanguageModelChatMessage.User(question)];
    const stop = new vscode.CancellationTokenSource();
    const startedMs = performance.now();
    const { stream } = await ours.sendRequest(messages, { tools }, stop.token);
    const { done } = await stream[Symbol.asyncIterator]().next();
    const firstMs = performance.now() - startedMs;
    stop.cancel();
    if (done) throw new Error("The model said nothing.");
    return { firstMs };
  },

  /** The open file becomes what it is on disk. */
  async revert() {
    await vscode.commands.executeCommand("workbench.action.files.revert");
    return { isDirty: vscode.window.activeTextEditor.document.isDirty };
  },
};

async function opened(path) {
  const [folder] = vscode.workspace.workspaceFolders;
  return vscode.window.showTextDocument(vscode.Uri.joinPath(folder.uri, path));
}

exports.activate = async ({ subscriptions }) => {
  ({ Lateness } = await import("./lateness.mjs"));
  const server = http.createServer((request, response) => {
    let body = "";
    request.on("data", (part) => (body += part));
    request.on("end", async () => {
      try {
        const result = await actions[request.url.slice(1)](JSON.parse(body || "{}"));
        response.end(JSON.stringify(result));
      } catch (error) {
        response.statusCode = 500;
        response.end(String(error?.stack ?? error));
      }
    });
  });
  server.listen(Number(process.env.NOSA_PROBE_PORT), "127.0.0.1");
  subscriptions.push({ dispose: () => server.close() });
};
