// A file of 300 lines edited in a 128 k context: how long until it is read again, that what is then kept is exactly what a fresh engine would keep,
// and that answers follow the file.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { writeRepository } from "../lib/corpus.mjs";
import { product, startEngine } from "../lib/product.mjs";
import { filesOf, freshFolder, keptHome, repository } from "./repositories.mjs";

const lines = 300;
const editedLine = 20;
const file = "archive/limits.js";
const facts = { old: 4471, new: 9163 };
const question = "What is the value of ARCHIVE_SERVER_PORT?";

export async function run(figures, { model, threads }) {
  const root = repository("128k");
  writeText(root, "old");
  const engine = await startEngine({ model, threads, home: keptHome() });
  const whole = await engine.request("nosa/index", { root, editorExcludes: {} });
  const before = await ask(engine, root);
  // What was prepared for the next chat is not to be in the time of the edit.
  await new Promise((resolve) => setTimeout(resolve, 5_000));
  writeText(root, "new");
  const start = performance.now();
  const summary = await engine.request("nosa/index", { root, editorExcludes: {} });
  const seconds = (performance.now() - start) / 1000;
  const after = await ask(engine, root);
  await engine.stop();

  const alone = await indexAlone(model, threads, path.basename(root));
  figures.add("a 300-line file edited in 128k: until it is exact again", seconds, "s", { goal: 15, better: "lower" });
  figures.add("tokens read for it", summary.tokensRead, "tokens");
  figures.add("its time over that of a repository with this file alone", seconds / alone.seconds, "x");
  figures.add("its KV is that of a fresh engine", Number(sameSegment(keptHome(), alone.home)), "yes", { goal: 1 });
  figures.add("the old fact was answered before", Number(before.includes(String(facts.old))), "yes", { goal: 1 });
  figures.add("the new fact is answered after", Number(after.includes(String(facts.new))), "yes", { goal: 1 });
  figures.add("the old fact is not answered after", Number(!after.includes(String(facts.old))), "yes", { goal: 1 });
  return { whole, summary, before, after };
}

/** 300 lines of real code with the fact in line 20. */
function writeText(root, version) {
  const code = filesOf("32k", 4).flatMap(({ text }) => text.split("\n"));
  const text = code.slice(0, lines);
  text[editedLine] = `export const ARCHIVE_SERVER_PORT = ${facts[version]};`;
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

async function ask(engine, root) {
  const { text } = await engine.request("nosa/chat", {
    root,
    messages: [{ role: "user", content: question }],
    tokensMax: 48,
    temperature: 0,
    seed: 1,
  });
  return text;
}
