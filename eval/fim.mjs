// In which order a completion's prompt says what stands around the cursor. A line of a held-out file is hidden from a point within it on, and the
// model has to write the rest of it, with no repository in its context.
//
//   --model ID     a known model, or the path of one (the default one)
//   --adapter      with the product's adapter for it, or those of NOSA_BENCH_ADAPTERS
//   --cases N      lines, half of them hidden from within a word on (200)
//   --threads N    (the number of cores)
//   --json FILE    every case
//
// Orders differ in what each key costs: in the first, what stands behind the cursor is read again; in the others only what was typed is new. The last one
// keeps the marks in the order of the first, with what stands behind in the place of what stands before, and the latter where the model writes.
import { existsSync, writeFileSync } from "node:fs";
import os from "node:os";
import { greedy, openModel } from "../bench/lib/context.mjs";
import { bootstrap } from "../bench/lib/figures.mjs";
import { modelFile, product } from "../bench/lib/product.mjs";
import { heldOutRepositories } from "./heldOut.mjs";

/** As much as the product shows on two cores. */
const beforeTokensMax = 256;
const behindTokensMax = 32;
const answerTokensMax = 48;
/** A line is worth asking for when something can be known of it, and something stands around it. */
const charactersMin = 24;
const edgeLines = 15;

/** Parts of a prompt; `line` is what was typed of the line since its beginning. */
const orders = {
  "behind last": ({ before, line, behind }) => ["prefix", before + line, "suffix", behind, "middle"],
  "typed last": ({ before, line, behind }) => ["prefix", before, "suffix", behind, "middle", line],
  "behind first": ({ before, line, behind }) => ["suffix", behind, "prefix", before + line, "middle"],
  "behind in the place of before": ({ before, line, behind }) => ["prefix", "suffix", behind, "middle", before + line],
};
const [reference, ...others] = Object.keys(orders);

export async function run(figures, options) {
  const wanted = String(options.model ?? "qwen2.5-coder-0.5b-instruct");
  const file = existsSync(wanted) ? wanted : await modelFile(wanted);
  const plain = options.adapter === undefined;
  const model = await openModel(file, { threads: Number(options.threads ?? os.cpus().length), plain });
  if (!plain && model.info.selection !== "adapter") throw new Error("There is no adapter for this model.");
  const format = product.promptFormat(model.tokenizer);
  if (format.fim === undefined) throw new Error("This model was not taught to fill in the middle.");
  const rows = [];
  for (const place of places(Number(options.cases ?? 200))) {
    const answers = {};
    for (const [name, parts] of Object.entries(orders)) {
      answers[name] = await answer(model, format, await prompt(model, format, place, parts), place);
    }
    rows.push({ path: place.path, withinWord: place.withinWord, rest: place.rest, answers });
    if (options.json !== undefined) writeFileSync(String(options.json), `${JSON.stringify(rows, null, 1)}\n`);
  }
  report(figures, rows);
  await model.dispose();
}

function report(figures, rows) {
  const value = (row, name, key) => row.answers[name][key];
  const mean = (of, name, key) => of.reduce((sum, row) => sum + value(row, name, key), 0) / of.length;
  for (const name of Object.keys(orders)) {
    for (const withinWord of [false, true]) {
      const of = rows.filter((row) => row.withinWord === withinWord);
      const where = withinWord ? "within a word" : "between words";
      figures.add(`${name}, ${where}: exact`, 100 * mean(of, name, "exact"), "%");
      figures.add(`${name}, ${where}: nats of the rest`, mean(of, name, "nats"), "nats", { better: "lower" });
    }
  }
  for (const name of others) {
    const {
      mean: more,
      low,
      high,
    } = bootstrap(rows.map((row) => value(row, name, "nats") - value(row, reference, "nats")));
    figures.add(`${name}: nats more than ${reference}`, more, `nats [${low.toFixed(2)}, ${high.toFixed(2)}]`);
  }
}

/** Ends of lines of held-out files, the same for the same number. */
function places(count) {
  let state = 0x2545f491;
  const draw = (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
  const files = heldOutRepositories()
    .flatMap(({ name, files: of }) =>
      of.map(({ path, text }) => ({ path: `${name}/${path}`, lines: text.split("\n") })),
    )
    .filter(({ lines }) => lines.length > 4 * edgeLines);
  const found = [];
  while (found.length < count) {
    const { path, lines } = files[draw(files.length)];
    const at = edgeLines + draw(lines.length - 2 * edgeLines);
    const text = lines[at].trimEnd();
    const from = text.length - text.trimStart().length;
    if (text.length - from < charactersMin || /^\s*(\/\/|#|\*|""")/.test(text)) continue;
    const cut = from + 4 + draw(text.length - from - 8);
    const withinWord = /^\w\w$/.test(text.slice(cut - 1, cut + 1));
    if (withinWord !== (found.length % 2 === 1)) continue;
    found.push({
      path,
      withinWord,
      before: `${lines.slice(0, at).join("\n")}\n${text.slice(0, from)}`,
      line: text.slice(from, cut),
      rest: text.slice(cut),
      behind: lines.slice(at + 1).join("\n"),
    });
  }
  return found;
}

async function prompt({ encode, tokenizer }, { fim, fileSep }, place, parts) {
  const lastOf = async (text) => (await encode(text.slice(-12 * beforeTokensMax))).slice(-beforeTokensMax);
  const firstOf = async (text) => (await encode(text.slice(0, 12 * behindTokensMax))).slice(0, behindTokensMax);
  const marks = {
    prefix: [tokenizer.id(fim.prefix)],
    suffix: [tokenizer.id(fim.suffix)],
    middle: [tokenizer.id(fim.middle)],
  };
  const pieces = [[tokenizer.id(fileSep)], await encode(`${place.path}\n`)];
  for (const part of parts(place)) {
    pieces.push(marks[part] ?? (part === place.behind ? await firstOf(part) : await lastOf(part)));
  }
  return Uint32Array.from(pieces.flatMap((piece) => [...piece]));
}

/** What the model writes there, and how likely the right rest is to it. */
async function answer({ native, encode, decode }, { completionStopIds }, tokens, { rest }) {
  const sequence = await native.createSequence({ basePosition: 0, attends: [] });
  const right = await encode(`${rest}\n`);
  await sequence.setTokens(product.joined([tokens, right]));
  const { logprobs } = await sequence.score({ from: tokens.length });
  await sequence.setTokens(tokens);
  const steps = Math.min(answerTokensMax, right.length + 2);
  const written = await sequence.decode({ steps, sampling: greedy, stopIds: completionStopIds });
  await sequence.dispose();
  const ids = written.steps.map(({ token }) => token).slice(0, written.stopped ? -1 : undefined);
  const [text] = decode(ids).split("\n");
  return { nats: -logprobs.reduce((sum, each) => sum + each, 0), exact: Number(text.trimEnd() === rest), text };
}
