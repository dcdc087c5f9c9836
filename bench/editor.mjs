// The editor experience, in a real VS Code in a real browser, with the packaged extension: ghost text while a scripted person types, the first words of a
// chat, typing while a repository is read, and what all that does to the editor's extension host. Ends within a quarter of an hour on two cores.
//
//   --edits N      edits of the trace (300)      --indexing N   of them again while another repository is read (a third)
//   --chats N      questions (8)                 --seed TEXT    of the trace ("typing")
//   --model ID     a known model (the default one)              --threads N   (the number of cores)
//   --tokens N     size of the repository (32768)
//   --only A,B     parts: activation, typing, chat, provider, indexing, sizes (all; indexing wants typing)
//   --windows N    opened for the activation (7)
//   --vsix FILE    a package to measure (that of the checkout, packaged anew when something changed)
//   --results DIR  where every sample is kept as JSON (bench/results/editor for the whole; nowhere for less)
//
// What is timed, and by whom: ghost text and chat by the page itself, from the key's event to the frame that draws (bench/editor/screen.mjs); stages by the
// engine, as the extension logs them; blocking by a second extension in the same host; activation by the editor ("Show Running Extensions").
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { freePort } from "../scripts/lib/editorHost.mjs";
import { inRoot } from "../scripts/lib/paths.mjs";
import { prepareBundles, prepareVsix } from "../scripts/lib/prepare.mjs";
import { createSteps } from "../scripts/lib/steps.mjs";
import { activations } from "./editor/activation.mjs";
import { Answers } from "./editor/answers.mjs";
import { firstWords } from "./editor/chat.mjs";
import { Editor } from "./editor/harness.mjs";
import { ask, packageProbe } from "./editor/probe.mjs";
import { firstParts, tools } from "./editor/provider.mjs";
import { reportHost, reportIndexing, reportTyping } from "./editor/report.mjs";
import { watchScreen } from "./editor/screen.mjs";
import { sizes } from "./editor/sizes.mjs";
import { stretches } from "./editor/trace.mjs";
import { typeTrace } from "./editor/typing.mjs";
import { cacheFolder } from "./lib/cacheFolder.mjs";
import { corpus, writeRepository } from "./lib/corpus.mjs";
import { median } from "./lib/figures.mjs";
import { modelFile, modelsFolder, product, startEngine } from "./lib/product.mjs";

/** Read while somebody types; more than can be read in that time. */
const otherTokens = 200_000;
const charactersPerToken = 3.6;
/** Edits before the first that counts. */
const warmEdits = 12;

/** Parts that want a repository that was read. */
const repositoryParts = ["typing", "chat", "provider", "indexing"];

/** Lists that open by themselves while somebody types would take keys that are meant for the text. */
const undisturbed = { "editor.suggestOnTriggerCharacters": false, "editor.parameterHints.enabled": false };

const questions = [
  "How is a request that was aborted cleaned up?",
  "Where are the headers of a response parsed?",
  "What happens when a connection is closed by the other side?",
  "Which file decides how many connections are kept open?",
  "How are timeouts implemented?",
  "Where is the body of a request turned into a stream?",
  "What does the pool do when no client is free?",
  "Which errors can a fetch end with?",
];

export async function run(figures, options) {
  const edits = Number(options.edits ?? 300);
  const indexingEdits = Number(options.indexing ?? Math.ceil(edits / 3));
  const seed = String(options.seed ?? "typing");
  const model = String(options.model ?? "qwen2.5-coder-0.5b-instruct");
  const threads = Number(options.threads ?? os.cpus().length);
  const repositoryTokens = Number(options.tokens ?? 32_768);
  const only = String(options.only ?? "activation,typing,chat,provider,indexing,sizes").split(",");
  // A trial must not write over the whole.
  const isWhole = edits >= 300 && options.only === undefined;
  const results =
    options.results ?? (isWhole ? fileURLToPath(new URL("./results/editor/", import.meta.url)) : undefined);

  const vsix = options.vsix === undefined ? await packaged() : path.resolve(String(options.vsix));
  const file = await modelFile(model);
  const raw = { model, threads, seed, edits };
  if (only.includes("sizes")) reportSizes(figures, vsix);

  const scratch = mkdtempSync(path.join(os.tmpdir(), "nosa-bench-editor-"));
  const files = corpus(repositoryTokens, (text) => text.length / charactersPerToken);
  const workspace = folderOf("typing", files);
  const home = cacheFolder("editor-home");
  const port = await freePort();
  const editor = await Editor.open({
    vsix,
    others: [await packageProbe(scratch)],
    workspace,
    story: "bench",
    settings: { ...undisturbed, "nosa.model": model, "nosa.threads": threads },
    env: {
      NOSA_HOME: home,
      NOSA_MODELS_HOME: modelsFolder(),
      NOSA_IDLE_EXIT_MS: "2000",
      NOSA_PROBE_PORT: String(port),
    },
  });
  try {
    await editor.statusBarItem(/Nosa: /).waitFor({ timeout: 90_000 });
    if (only.includes("activation")) {
      raw.activation = await activations(editor, Number(options.windows ?? 7));
      reportActivation(figures, raw.activation);
    }
    if (!only.some((part) => repositoryParts.includes(part))) return;
    console.log(`Reading ${files.length} files, some ${repositoryTokens} tokens, unless an earlier run has.`);
    await readRepository(editor, path.basename(workspace));
    // Each completion's cost is written to the log from now on.
    await editor.logEverything();
    await watchScreen(editor.page);
    const typing = { editor, port, answers: new Answers(editor.home) };
    const places = () => stretches(files, seed);
    const warm = () => typeTrace({ ...typing, stretches: stretches(files, `${seed} before`), edits: warmEdits });

    if (only.includes("typing")) {
      await warm();
      await ask(port, "start");
      raw.typing = await typeTrace({ ...typing, stretches: places(), edits, onEdit: progress("typing", edits) });
      raw.host = await ask(port, "stop");
      const tokens = await product.Tokenizer.open(file, {
        addonPath: inRoot("dist/nosa.node"),
        workerPath: inRoot("dist/tokenizerWorker.js"),
      });
      const tokensOf = async (text) => (await tokens.encode([{ text, special: false }]))[0].length;
      await reportTyping(figures, raw.typing, tokensOf);
      reportHost(figures, raw.host);
      await tokens.dispose();
    }
    if (only.includes("chat")) {
      const asked = questions.slice(0, Number(options.chats ?? questions.length));
      raw.chat = await firstWords(editor, asked, (ms, question) => console.log(`  ${Math.round(ms)} ms  ${question}`));
      const lower = { better: "lower" };
      figures.add(`chat: first words on the screen, median of ${asked.length}`, median(raw.chat), "ms", {
        goal: 1_000,
        ...lower,
      });
      figures.add(`chat: first words on the screen, longest of ${asked.length}`, Math.max(...raw.chat), "ms");
    }
    if (only.includes("provider")) {
      const asked = questions.slice(0, Number(options.chats ?? questions.length));
      raw.provider = await firstParts(editor, port, asked, (ms, question) =>
        console.log(`  ${Math.round(ms)} ms  ${question}`),
      );
      reportProvider(figures, raw.provider);
    }
    if (only.includes("indexing") && raw.typing !== undefined) {
      // Without what was offered before: the same edits are to be work again.
      await editor.command("Nosa: Restart Engine");
      await readRepository(editor, path.basename(workspace));
      await warm();
      const other = new Reading({
        root: folderOf(
          "reading",
          corpus(otherTokens, (text) => text.length / charactersPerToken, 1),
        ),
        model,
        threads,
        home,
      });
      await other.start();
      raw.whileIndexing = await typeTrace({
        ...typing,
        stretches: places(),
        edits: indexingEdits,
        onEdit: progress("typing while indexing", indexingEdits),
      });
      raw.indexing = await other.stop();
      reportIndexing(figures, raw.typing, raw.whileIndexing);
      figures.add("while indexing: tokens read a second beside the typing", raw.indexing.tokensPerSecond, "tokens/s");
    }
  } catch (error) {
    await editor.shot("failed").catch(() => undefined);
    console.error(editor.logs());
    throw error;
  } finally {
    await editor.close();
    rmSync(scratch, { recursive: true, force: true });
    if (results !== undefined) keep(String(results), { figures: figures.all, raw });
  }
}

function keep(folder, parts) {
  mkdirSync(folder, { recursive: true });
  const record = { date: new Date().toISOString().slice(0, 10), machine: os.cpus()[0].model, ...parts };
  writeFileSync(path.join(folder, "editor.json"), `${JSON.stringify(record, null, 1)}\n`);
}

/** The extension as it is in the checkout. */
async function packaged() {
  const steps = createSteps({ quiet: true });
  await prepareBundles(steps);
  return prepareVsix(steps);
}

/** Another repository being read by the same engine, from nothing, for as long as it takes. */
class Reading {
  #options;
  #engine;
  #stop;
  #ended;
  #progress;
  #tokens = 0;
  #startedMs = 0;

  constructor(options) {
    this.#options = options;
  }

  async start() {
    const { root, ...engine } = this.#options;
    this.#engine = await startEngine(engine);
    await this.#engine.request("nosa/forget", { root });
    this.#stop = this.#engine.cancellation();
    this.#startedMs = performance.now();
    const reading = new Promise((resolve) => {
      this.#engine.onNotification("nosa/indexProgress", (progress) => {
        if (progress.root !== root || progress.stage !== "reading") return;
        this.#tokens = progress.tokensDone;
        resolve();
      });
    });
    this.#ended = this.#engine
      .request("nosa/index", { root, editorExcludes: {} }, this.#stop.token)
      .then(() => "finished")
      .catch(() => "stopped");
    await Promise.race([reading, this.#ended]);
  }

  /** `{tokens, tokensPerSecond}` read meanwhile. Fails when it ended by itself: then the typing was not beside it. */
  async stop() {
    const seconds = (performance.now() - this.#startedMs) / 1000;
    const state = await Promise.race([this.#ended, Promise.resolve("reading")]);
    this.#stop.cancel();
    await this.#ended;
    await this.#engine.request("nosa/forget", { root: this.#options.root });
    this.#engine.leave();
    if (state !== "reading") throw new Error(`The other repository was ${state} while there was typing still.`);
    return { tokens: this.#tokens, tokensPerSecond: this.#tokens / seconds };
  }
}

/** A folder of its own with these files and nothing else, at a place that stays the same, so that what was read of it is found again. */
function folderOf(name, files) {
  const root = path.join(cacheFolder("repositories"), `editor-${name}`);
  rmSync(root, { recursive: true, force: true });
  writeRepository(root, files);
  return root;
}

async function readRepository(editor, name) {
  await editor.command("Nosa: Index Repository");
  const done = editor.notification(new RegExp(`Nosa (knows ${name} already|has read ${name})`)).first();
  await done.waitFor({ timeout: 600_000 });
  await editor.command("Notifications: Clear All Notifications");
  await editor.page.locator(".notification-toast").first().waitFor({ state: "detached" });
}

function reportActivation(figures, windows) {
  const lower = { better: "lower" };
  const shown = windows.map(({ shownMs }) => shownMs);
  const of = `of ${windows.length} windows`;
  figures.add(`activation, as the editor shows it, median ${of}`, median(shown), "ms", { goal: 100, ...lower });
  figures.add(`activation, as the editor shows it, longest ${of}`, Math.max(...shown), "ms");
  figures.add(
    `activation: building our parts, median ${of}`,
    median(windows.map(({ activateMs }) => activateMs)),
    "ms",
  );
}

function reportProvider(figures, { fresh, kept }) {
  const brought = `${tools.length} tools of ${JSON.stringify(tools).length} characters`;
  const lower = { better: "lower" };
  figures.add(`model provider: first part of an answer, ${brought} never seen before`, fresh, "ms", lower);
  figures.add(`model provider: the same with tools seen before, median of ${kept.length}`, median(kept), "ms", lower);
}

function reportSizes(figures, vsixFile) {
  const { vsix, bundles } = sizes(vsixFile);
  const lower = { better: "lower" };
  figures.add("package without the CUDA part", vsix, "MB", { goal: 15, ...lower });
  figures.add(`largest bundle, ${bundles[0].name}`, bundles[0].megabytes, "MB", { goal: 1, ...lower });
  figures.add(
    "extension.js, which the editor loads",
    bundles.find(({ name }) => name === "extension.js").megabytes,
    "MB",
  );
}

function progress(what, edits) {
  const startedMs = performance.now();
  return (sample, count) => {
    if (count % 20 !== 0 && count !== edits) return;
    console.log(`  ${what}: ${count} of ${edits} edits, ${Math.round((performance.now() - startedMs) / 1000)} s`);
  };
}
