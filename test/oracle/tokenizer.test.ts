/**
 * Token ids against llama.cpp's own, which is right wherever the two differ.
 */

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import * as path from "node:path";
import { Template } from "@huggingface/jinja";
import { getLlama, LlamaLogLevel, type Llama, type LlamaModel, type Token } from "node-llama-cpp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { chatTail } from "../../engine/prompts/chat";
import { promptFormat } from "../../engine/prompts/format";
import { headerPieces } from "../../engine/prompts/header";
import { contentPiece, fileHeaderPieces } from "../../engine/prompts/segment";
import { preTokenizerNames } from "../../engine/tokenizer/preTokenizers";
import { joined, type Tokenizer } from "../../engine/tokenizer/tokenizer";
import { awkwardText, randomUnicode, realCode } from "../support/corpus";
import { ggufBytes, ggufMetadata } from "../support/ggufHeader";
import { modelFile } from "../support/models";
import { random, testSeed } from "../support/random";
import { tokenizerWorkshop, type TokenizerWorkshop } from "../support/tokenizer";

const seed = testSeed();
let llama: Llama;
let workshop: TokenizerWorkshop;

beforeAll(async () => {
  llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.error });
  workshop = await tokenizerWorkshop();
});

afterAll(async () => {
  await workshop.dispose();
  await llama.dispose();
});

/** Encodes with both and compares; reports speed and, when they differ, where. */
async function expectSame(name: string, tokenizer: Tokenizer, oracle: LlamaModel, text: string): Promise<void> {
  const started = performance.now();
  const [ours] = await tokenizer.encode([{ text, special: false }]);
  const ourMs = performance.now() - started;
  const theirs = Uint32Array.from(oracle.tokenize(text, false));
  const theirMs = performance.now() - started - ourMs;
  const bytes = Buffer.byteLength(text);
  const speed = (ms: number): string => `${(bytes / 1e3 / ms).toFixed(2)} MB/s`;
  console.log(`${name}: ${bytes} bytes, ${theirs.length} tokens; ours ${speed(ourMs)}, llama.cpp ${speed(theirMs)}`);
  const at = (ours ?? []).findIndex((id, index) => id !== theirs[index]);
  const first = at < 0 ? Math.min(ours?.length ?? 0, theirs.length) : at;
  const around = (ids: Uint32Array): string =>
    JSON.stringify([[...ids.slice(first, first + 8)], tokenizer.decode(ids.slice(Math.max(0, first - 8), first + 8))]);
  expect(
    ours?.length === theirs.length && at < 0,
    `${name} differs at token ${first}: ${around(ours ?? theirs)} against ${around(theirs)}`,
  ).toBe(true);
}

describe.each(["qwen2.5-coder-0.5b-instruct", "smollm2-135m-instruct"])("%s", (id) => {
  let tokenizer: Tokenizer;
  let oracle: LlamaModel;

  beforeAll(async () => {
    const modelPath = await modelFile(id);
    tokenizer = await workshop.open(modelPath);
    oracle = await llama.loadModel({ modelPath, vocabOnly: true });
  });

  afterAll(() => oracle.dispose());

  it("gives llama.cpp's ids for a megabyte of code and Unicode", async () => {
    const draw = random(seed);
    await expectSame("code", tokenizer, oracle, realCode(draw, 800_000));
    await expectSame("awkward", tokenizer, oracle, awkwardText(draw));
    await expectSame("unicode", tokenizer, oracle, randomUnicode(draw, 250_000));
    await expectSame(
      "mixed",
      tokenizer,
      oracle,
      Array.from({ length: 100 }, () => realCode(draw, 700) + randomUnicode(draw, 90)).join(""),
    );
  });

  it("gives llama.cpp's ids for each code point next to letters, digits, signs and spaces", async () => {
    const lines: string[] = [];
    for (let point = 0; point < 0x35000; point++) {
      if (point >= 0xd800 && point <= 0xdfff) continue;
      const character = String.fromCodePoint(point);
      lines.push(`${character}/j 1${character} x\n`);
    }
    for (let at = 0; at < lines.length; at += 60_000)
      await expectSame(`points ${at}`, tokenizer, oracle, lines.slice(at, at + 60_000).join(""));
  });

  it("gives llama.cpp's ids, and in bounded time, for long runs", async () => {
    const draw = random(seed + 1);
    await expectSame("100 kB of spaces", tokenizer, oracle, `${" ".repeat(100_000)}x`);
    const bytes = Uint8Array.from({ length: 150_000 }, () => draw.between(0, 255));
    const started = performance.now();
    await expectSame("200 kB of base64", tokenizer, oracle, Buffer.from(bytes).toString("base64"));
    await expectSame(
      "letters",
      tokenizer,
      oracle,
      Array.from({ length: 60_000 }, () => draw.pick([..."etaoinshrdlu"])).join(""),
    );
    await expectSame("newlines", tokenizer, oracle, "\n".repeat(60_000) + "a\r\n \t\n".repeat(2_000));
    expect(performance.now() - started).toBeLessThan(60_000);
  });

  it("finds special tokens where asked, as llama.cpp does, and nowhere else", async () => {
    const text = "<|im_start|>user\nWhat is <|im_end|>?\n<|endoftext|><|fim_prefix|>x<|im_end|>";
    const [marked, plain] = await tokenizer.encode([
      { text, special: true },
      { text, special: false },
    ]);
    expect([...(marked ?? [])]).toEqual([...oracle.tokenize(text, true)]);
    expect([...(plain ?? [])]).toEqual([...oracle.tokenize(text, false)]);
    expect([...(plain ?? [])].filter((token) => tokenizer.controlIds.includes(token))).toEqual([]);
  });
});

describe.each(["qwen2.5-coder-0.5b-instruct", "smollm2-135m-instruct"])("a conversation for %s", (id) => {
  it("has the ids that llama.cpp gives what the model's own template renders", async () => {
    const modelPath = await modelFile(id);
    const tokenizer = await workshop.open(modelPath);
    const oracle = await llama.loadModel({ modelPath, vocabOnly: true });
    const format = promptFormat(tokenizer);
    const messages = [
      { role: "user", content: "Where is the parser?" },
      { role: "assistant", content: "In src/parse.ts, from line 10 on." },
      { role: "user", content: "And its tests?" },
    ] as const;
    const start = [
      ...headerPieces(format, "some repository"),
      ...fileHeaderPieces(format, "src/parse.ts"),
      contentPiece("export const x = 1;\n"),
    ];
    const { tokens } = await chatTail(tokenizer, format, { messages, tokensMax: 1_000 });
    const ours = joined([await tokenizer.encodeJoined(start), tokens]);
    const [, system] = /^system\n([^]*?)\nuser\n/.exec(tokenizer.decode(tokens)) ?? [];
    const conversation = new Template(tokenizer.chatTemplate).render({
      messages: [{ role: "system", content: system }, ...messages],
      add_generation_prompt: true,
    });
    const rendered = start.map(({ text }) => text).join("") + conversation;
    expect([...ours]).toEqual([...oracle.tokenize(rendered, true)]);
    expect(tokenizer.decode(ours)).toBe(oracle.detokenize([...ours] as Token[], false));
    await oracle.dispose();
    await tokenizer.dispose();
  });
});

describe("the cutting of words, by name", () => {
  let folder: string;

  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "nosa-vocabulary-"));
  });

  afterAll(() => rm(folder, { recursive: true, force: true }));

  it.each(preTokenizerNames())("%s is llama.cpp's", async (pre) => {
    const metadata = ggufMetadata(await modelFile("smollm2-135m-instruct"));
    const scalars = { ...metadata.scalars };
    if (pre === "") delete scalars["tokenizer.ggml.pre"];
    else scalars["tokenizer.ggml.pre"] = pre;
    const modelPath = path.join(folder, `${pre}.gguf`);
    await writeFile(modelPath, ggufBytes({ scalars, arrays: metadata.arrays }));
    const tokenizer = await workshop.open(modelPath);
    const oracle = await llama.loadModel({ modelPath, vocabOnly: true });
    const draw = random(seed + 2);
    await expectSame(`${pre} code`, tokenizer, oracle, realCode(draw, 60_000));
    await expectSame(`${pre} awkward`, tokenizer, oracle, awkwardText(draw));
    await expectSame(`${pre} unicode`, tokenizer, oracle, randomUnicode(draw, 20_000));
    await oracle.dispose();
    await tokenizer.dispose();
  });

  it("SentencePiece merges are llama.cpp's, for a vocabulary of random words and scores", async () => {
    const draw = random(seed + 3);
    const letters = ["\u2581", ..."abcé日"];
    const words = new Set(letters);
    while (words.size < 300) words.add(Array.from({ length: draw.between(2, 5) }, () => draw.pick(letters)).join(""));
    const bytes = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
    const tokens = ["<unk>", "<s>", "</s>", ...bytes, ...words];
    const kinds = [2, 3, 3, ...bytes.map(() => 6), ...[...words].map(() => 1)];
    // Few different scores, so that equals meet.
    const scores = tokens.map(() => -draw.between(1, 60) - 0.5);
    const { scalars } = ggufMetadata(await modelFile("smollm2-135m-instruct"));
    const kept = Object.entries(scalars).filter(
      ([key]) => !key.startsWith("tokenizer.") && !key.endsWith("vocab_size"),
    );
    const modelPath = path.join(folder, "sentencePiece.gguf");
    const ids = {
      "tokenizer.ggml.bos_token_id": 1,
      "tokenizer.ggml.eos_token_id": 2,
      "tokenizer.ggml.unknown_token_id": 0,
    };
    await writeFile(
      modelPath,
      ggufBytes({
        scalars: { ...Object.fromEntries(kept), "tokenizer.ggml.model": "llama", ...ids },
        arrays: {
          "tokenizer.ggml.tokens": tokens,
          "tokenizer.ggml.token_type": kinds,
          "tokenizer.ggml.scores": scores,
        },
      }),
    );
    const tokenizer = await workshop.open(modelPath);
    const oracle = await llama.loadModel({ modelPath, vocabOnly: true });
    const some = [...letters.slice(1), " ", " ", "\n", "x", "👍"];
    for (let round = 0; round < 20; round++) {
      const text = Array.from({ length: draw.between(1, 2_000) }, () => draw.pick(some)).join("");
      await expectSame(`sentencePiece ${round}`, tokenizer, oracle, text);
    }
    expect(tokenizer.bosId).toBe(1);
    await oracle.dispose();
  });
});
