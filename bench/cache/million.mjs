// A repository of a million tokens, several packages joined, under 2 GB: read, asked, completed. An index run that was stopped goes on where it was.
//
//   --million-minutes N   stops reading after so long; what is there by then is asked all the same
import { readFileSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { cacheFolder } from "../lib/cacheFolder.mjs";
import { startEngine } from "../lib/product.mjs";
import { definitions, question } from "../lookups/definitions.mjs";
import { mostAnonymousBytes } from "./memory.mjs";
import { filesOf, repository } from "./repositories.mjs";

const memoryGigabytes = 2;
const diskGigabytes = 24;
const asked = 10;

export async function run(figures, options) {
  const { model, threads } = options;
  const root = repository("1M");
  const changes = { memoryGigabytes, diskGigabytes, contextTokensMax: 1_300_000 };
  const engine = await startEngine({ model, threads, home: cacheFolder("home-1M"), changes });
  const { most, result } = await mostAnonymousBytes(engine.pid, async () => {
    const summary = await index(engine, root, Number(options["million-minutes"] ?? Infinity));
    return { summary, answers: await askSome(engine, root), completion: await complete(engine, root) };
  });
  const status = await engine.request("nosa/status", {});
  await engine.stop();
  const { summary, answers, completion } = result;
  console.log(`  ${status.device}. ${status.deviceNote ?? ""}`);
  const usages = answers.map(({ usage }) => usage);
  const last = usages.at(-1);
  figures.add("1M: files", summary.files, "files");
  figures.add("1M: tokens of the repository", summary.tokens, "tokens", { goal: 1_000_000 });
  figures.add("1M: tokens read by this run", summary.tokensRead, "tokens");
  if (summary.tokensRead > 0) figures.add("1M: reading", summary.tokensRead / summary.seconds, "tokens/s");
  figures.add("1M: tokens that answers could attend to", last.contextTokens, "tokens");
  figures.add(`1M: blocks attended to (of ${last.totalBlocks})`, last.attendedBlocks, "blocks");
  figures.add("1M: KV on disk and in memory", status.kvBytes / 1e9, "GB");
  figures.add("1M: memory for KV and side-cars", status.memory.bytes / 1e9, "GB", {
    goal: memoryGigabytes,
    better: "lower",
  });
  figures.add("1M: anonymous memory of the engine, most", most / 1e9, "GB");
  const planned = status.memory.bytesMax + status.memory.engineBytes;
  figures.add("1M: of what the plan says", (100 * most) / planned, "%", { goal: 110, better: "lower" });
  figures.add("1M: read from disk", status.memory.diskBytesRead / 1e6, "MB");
  figures.add("1M: first token, first question", usages[0].millis.firstToken, "ms");
  figures.add("1M: first token, last question", last.millis.firstToken, "ms");
  figures.add("1M: decode", (1000 * last.answerTokens) / last.millis.decode, "tokens/s");
  figures.add("1M: blocks read from disk, last answer", last.blocksRead, "blocks");
  figures.add(
    `1M: answers that quote the right line (of ${answers.length})`,
    answers.filter(({ right }) => right).length,
    "answers",
  );
  figures.add("1M: completion, first to last token", completion.millis, "ms");
  return { summary, answers, completion, status };
}

/** The summary; of what was read until the time was over when that came first. */
async function index(engine, root, minutes) {
  const cancellation = engine.cancellation();
  const timer = Number.isFinite(minutes) ? setTimeout(() => cancellation.cancel(), minutes * 60_000) : undefined;
  try {
    return await engine.request("nosa/index", { root, editorExcludes: {} }, cancellation.token);
  } finally {
    clearTimeout(timer);
  }
}

async function askSome(engine, root) {
  const all = definitions(filesOf("1M"));
  const step = Math.floor(all.length / asked);
  const answers = [];
  for (const definition of all.filter((_, at) => at % step === 0).slice(0, asked)) {
    const { text, usage, references } = await engine.request("nosa/chat", {
      root,
      messages: [{ role: "user", content: question(definition).question }],
      tokensMax: 40,
      temperature: 0,
      seed: 1,
    });
    const line = definition.lead + definition.name + question(definition).answer;
    answers.push({ name: definition.name, line, text, right: text.includes(line), usage, references });
  }
  return answers;
}

async function complete(engine, root) {
  const [{ path: name }] = filesOf("1M").filter(({ path: each }) => each.includes("eslint/lib/rules"));
  const file = path.join(root, name);
  const text = readFileSync(file, "utf8");
  const uri = pathToFileURL(file).href;
  const line = Math.floor(text.split("\n").length / 2);
  await engine.notify("textDocument/didOpen", { textDocument: { uri, languageId: "javascript", version: 1, text } });
  const start = performance.now();
  const items = await engine.request("textDocument/inlineCompletion", {
    textDocument: { uri },
    position: { line, character: 0 },
    context: { triggerKind: 1 },
  });
  return { millis: performance.now() - start, items };
}
