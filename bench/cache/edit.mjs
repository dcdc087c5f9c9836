// A file of 300 lines edited in a 128 k context: how long until it is read again, that what is then kept is exactly what a fresh engine would keep,
// and that answers follow the file.
import { createHash, randomInt } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { writeRepository } from "../lib/corpus.mjs";
import { product, startEngine } from "../lib/product.mjs";
import { filesOf, freshFolder, keptHome, repository } from "./repositories.mjs";

const lines = 300;
const file = "archive/limits.js";
/**
 * Constants of the file: the line each stands in, and its value before and after the edit. Values are other ones in every run: what an earlier one read is
 * kept, and the file would not be read again.
 */
const facts = [
  { name: "ARCHIVE_SERVER_PORT", line: 20, digits: 4 },
  { name: "ARCHIVE_ENTRIES_MAX", line: 75, digits: 5 },
  { name: "ARCHIVE_RETRY_MILLIS", line: 130, digits: 4 },
  { name: "ARCHIVE_CHUNK_BYTES", line: 190, digits: 5 },
  { name: "ARCHIVE_LEASE_SECONDS", line: 255, digits: 3 },
].map(({ name, line, digits }) => {
  const [least, most] = [10 ** (digits - 1), 10 ** digits];
  const before = randomInt(least, most);
  const moved = (before - least + randomInt(1, most - least)) % (most - least);
  return { name, line, old: before, new: least + moved };
});
/** As of the look-ups (bench/lookups): a small model gets one of five wrong now and then with nothing edited. */
const rightMin = 4;

export async function run(figures, { model, threads }) {
  const root = repository("128k");
  writeText(root, "old");
  const engine = await startEngine({ model, threads, home: keptHome() });
  const whole = await engine.request("nosa/index", { root, editorExcludes: {} });
  const before = await askAll(engine, root);
  // What was prepared for the next chat is not to be in the time of the edit.
  await new Promise((resolve) => setTimeout(resolve, 5_000));
  writeText(root, "new");
  const start = performance.now();
  const summary = await engine.request("nosa/index", { root, editorExcludes: {} });
  const seconds = (performance.now() - start) / 1000;
  const after = await askAll(engine, root);
  await engine.stop();

  const alone = await indexAlone(model, threads, path.basename(root));
  figures.add("a 300-line file edited in 128k: until it is exact again", seconds, "s", { goal: 15, better: "lower" });
  figures.add("tokens read for it", summary.tokensRead, "tokens");
  figures.add("its time over that of a repository with this file alone", seconds / alone.seconds, "x");
  figures.add("its KV is that of a fresh engine", Number(sameSegment(keptHome(), alone.home)), "yes", { goal: 1 });
  const count = (answers, version) => answers.filter((text, at) => text.includes(String(facts[at][version]))).length;
  figures.add(`facts answered before (of ${facts.length})`, count(before, "old"), "facts", { goal: rightMin });
  figures.add(`new facts answered after (of ${facts.length})`, count(after, "new"), "facts", { goal: rightMin });
  figures.add("old facts still answered after", count(after, "old"), "facts", { goal: 0, better: "lower" });
  return { whole, summary, before, after };
}

/** 300 lines of real code with the facts among them. */
function writeText(root, version) {
  const code = filesOf("32k", 4).flatMap(({ text }) => text.split("\n"));
  const text = code.slice(0, lines);
  for (const fact of facts) text[fact.line] = `export const ${fact.name} = ${fact[version]};`;
  writeRepository(root, [{ path: file, text: `${text.join("\n")}\n` }]);
}

/** A repository of the same name that holds the new file alone: its segment is to be the same. */
async function indexAlone(model, threads, name) {
  const home = freshFolder("home");
  const root = path.join(freshFolder("alone"), name);
  writeRepository(root, []);
  writeText(root, "new");
  const engine = await startEngine({ model, threads, home });
  const tiny = freshFolder("tiny");
  writeFileSync(path.join(tiny, "one.js"), "export const one = 1;\n");
  await engine.request("nosa/index", { root: tiny, editorExcludes: {} });
  const start = performance.now();
  await engine.request("nosa/index", { root, editorExcludes: {} });
  const seconds = (performance.now() - start) / 1000;
  await engine.stop();
  return { home, seconds };
}

/** Whether both data folders keep the same bytes for the file's segment. */
function sameSegment(home, other) {
  const kept = segmentBytes(home);
  const alone = segmentBytes(other);
  return kept !== undefined && kept === alone;
}

function segmentBytes(home) {
  const { contexts } = product.dataPaths(home);
  for (const record of recordsIn(path.join(contexts, "records"))) {
    const segment = record.segments.find(({ files }) => files.includes(file));
    if (segment === undefined) continue;
    return createHash("sha256")
      .update(readFileSync(path.join(contexts, "segments", `${segment.key}.kv`)))
      .digest("hex");
  }
  return undefined;
}

function recordsIn(folder) {
  return readdirSync(folder).map((name) => JSON.parse(readFileSync(path.join(folder, name), "utf8")));
}

async function askAll(engine, root) {
  const answers = [];
  for (const { name } of facts) {
    const content = `Quote the line that defines \`${name}\`, exactly as it stands in the repository.`;
    const { text } = await engine.request("nosa/chat", {
      root,
      messages: [{ role: "user", content }],
      tokensMax: 48,
      temperature: 0,
      seed: 1,
    });
    answers.push(text);
  }
  return answers;
}
