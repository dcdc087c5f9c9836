// llama.cpp asked as llama.vscode asks it, with its published budget: 256 lines before the cursor and 64 behind it, of which the server takes three and one
// quarter of a batch of 1,024 tokens; before them 16 chunks of 64 lines from a ring buffer. The prompt's layout is that of the server's /infill.
import { getLlama } from "node-llama-cpp";
import { seeded, shuffled } from "../lib/random.mjs";
import { isWhole, lineOf, tokensMax } from "./written.mjs";

const prefixLines = 256;
const suffixLines = 64;
const batchTokens = 1_024;
const chunks = 16;
const chunkLines = 64;
const contextTokens = 32_768;
const predictTokens = 128;

/** Opens a model of the Qwen2.5-Coder family: its marks for files and holes are needed. `gpu`: what computes, as getLlama() has it. */
export async function openLlamaVscode(modelPath, { threads, gpu = false }) {
  const llama = await getLlama({ gpu, build: "never", maxThreads: threads, logLevel: "error" });
  const model = await llama.loadModel({ modelPath });
  const context = await model.createContext({
    contextSize: contextTokens,
    batchSize: batchTokens,
    threads: { ideal: threads, min: threads },
  });
  const sequence = context.getSequence();
  const plain = (text) => model.tokenize(text, false);
  const mark = (name) => {
    const ids = model.tokenize(name, true);
    if (ids.length !== 1) throw new Error(`The model has no token ${name}.`);
    return ids[0];
  };
  const marks = {
    repository: mark("<|repo_name|>"),
    file: mark("<|file_sep|>"),
    prefix: mark("<|fim_prefix|>"),
    suffix: mark("<|fim_suffix|>"),
    middle: mark("<|fim_middle|>"),
  };

  function promptOf({ before, after }, ring) {
    const above = before.split("\n");
    const typed = above.pop();
    const [rest, ...below] = after.split("\n");
    // Of a line with nothing on it but its indentation, the indentation is written by the model.
    const start = plain(typed.trim() === "" ? "" : typed);
    const prefix = plain(`${above.slice(-prefixLines).join("\n")}\n`).slice(-(3 * batchTokens) / 4);
    const suffix = plain(`${rest}\n${below.slice(0, suffixLines).join("\n")}\n`).slice(
      0,
      batchTokens / 4 - 2 - start.length,
    );
    const extra = [
      marks.repository,
      ...plain("myproject\n"),
      ...ring.flatMap(({ path, text }) => [marks.file, ...plain(`${path}\n`), ...plain(text)]),
      marks.file,
      ...plain("filename\n"),
    ];
    return [
      ...extra.slice(-(contextTokens - batchTokens - 2 * predictTokens)),
      ...[marks.prefix, ...prefix, ...start, marks.suffix, ...suffix, marks.middle],
    ];
  }

  return {
    /** `{line, tokens, milliseconds}`, as complete() of ours.mjs; what the last prompt began with is not read again. */
    async complete(each, ring) {
      const prompt = promptOf(each, ring);
      const startedMs = performance.now();
      await sequence.adaptStateToTokens(prompt.slice(0, -1), false);
      const drawn = [];
      let text = "";
      for await (const token of sequence.evaluate(prompt.slice(sequence.nextTokenIndex), { temperature: 0 })) {
        drawn.push(token);
        text = model.detokenize(drawn);
        if (isWhole(text) || drawn.length === tokensMax) break;
      }
      return { line: lineOf(text), tokens: prompt.length, milliseconds: performance.now() - startedMs };
    },

    async dispose() {
      await context.dispose();
      await model.dispose();
      await llama.dispose();
    },
  };
}

/**
 * The ring as it may be at best while `path` is worked on: a chunk of each file that was visited, the last one nearest to the prompt. Visited were the files
 * beside it, those that it names, and those that the release changes; in the state of `files`. `[{path, text}]`
 */
export function ringOf(files, path, changed) {
  const live = files.find((file) => file.path === path)?.text ?? "";
  const random = seeded(`ring ${path}`);
  const folder = path.slice(0, path.lastIndexOf("/") + 1);
  const others = shuffled(
    files.filter((file) => file.path !== path),
    random,
  );
  const named = (file) => live.includes(stem(file.path));
  const visited = [
    ...others.filter((file) => changed.has(file.path)),
    ...others.filter((file) => !changed.has(file.path) && named(file)),
    ...others.filter((file) => !changed.has(file.path) && !named(file) && file.path.startsWith(folder)),
  ];
  return visited
    .slice(0, chunks)
    .map((file) => ({ path: file.path, text: chunkOf(file.text, random) }))
    .reverse();
}

function stem(path) {
  return path.slice(path.lastIndexOf("/") + 1).replace(/\.\w+$/, "");
}

function chunkOf(text, random) {
  const lines = text.split("\n");
  const start = Math.floor(random() * Math.max(1, lines.length - chunkLines + 1));
  return `${lines.slice(start, start + chunkLines).join("\n")}\n`;
}
