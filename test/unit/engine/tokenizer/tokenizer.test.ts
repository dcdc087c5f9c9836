import { mkdir, writeFile } from "node:fs/promises";
import * as path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Cancelled } from "../../../../engine/errors";
import { byteLevelBytes } from "../../../../engine/tokenizer/bytes";
import type { Tokenizer } from "../../../../engine/tokenizer/tokenizer";
import { randomUnicode } from "../../../support/corpus";
import { ggufBytes } from "../../../support/ggufHeader";
import { random, testSeed } from "../../../support/random";
import { tempFolders } from "../../../support/tempFolder";
import { tokenizerWorkshop, type TokenizerWorkshop } from "../../../support/tokenizer";

const temp = tempFolders();
let workshop: TokenizerWorkshop;

beforeAll(async () => {
  workshop = await tokenizerWorkshop();
});
afterAll(() => workshop.dispose());

/** The 256 single-byte tokens of a byte-level vocabulary, in the order of their bytes. */
const alphabet = (() => {
  const characters = Array.from({ length: 512 }, (_, code) => String.fromCharCode(code)).filter(
    (character) => byteLevelBytes(character).length === 1,
  );
  const byByte = new Map(characters.map((character) => [byteLevelBytes(character)[0] ?? 0, character]));
  return Array.from({ length: 256 }, (_, byte) => byByte.get(byte) ?? "");
})();

/** A GGUF file with bytes, a few merges and two control tokens. */
async function smallModel(): Promise<string> {
  const file = path.join(await temp(), "small.gguf");
  const tokens = [...alphabet, "he", "ll", "hell", "Ġ Ġ".replace(" ", ""), "<|im_end|>", "<|file_sep|>"];
  await writeFile(
    file,
    ggufBytes({
      scalars: {
        "general.architecture": "qwen2",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.eos_token_id": 260,
        "tokenizer.chat_template": "{{ 1 }}",
      },
      arrays: {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": tokens.map((token) => (token.startsWith("<|") ? 3 : 1)),
        "tokenizer.ggml.merges": ["h e", "l l", "he ll", "Ġ Ġ"],
      },
    }),
  );
  return file;
}

async function small(): Promise<Tokenizer> {
  return workshop.open(await smallModel());
}

it("encodes, decodes and tells what the vocabulary holds", async () => {
  const tokenizer = await small();
  const [ids] = await tokenizer.encode([{ text: "hello", special: false }]);
  expect([...(ids ?? [])]).toEqual([258, "o".charCodeAt(0)]);
  expect([tokenizer.vocabSize, tokenizer.chatTemplate, tokenizer.eosIds, tokenizer.bosId]).toEqual([
    262,
    "{{ 1 }}",
    [260],
    undefined,
  ]);
  expect([tokenizer.id("<|file_sep|>"), tokenizer.id("<|repo_name|>"), tokenizer.markText(260)]).toEqual([
    261,
    undefined,
    "<|im_end|>",
  ]);
  expect(tokenizer.controlIds).toEqual([260, 261]);
  expect(tokenizer.tokenBytes(258)).toEqual(new TextEncoder().encode("hell"));
  expect([tokenizer.tokenBytes(260).length, tokenizer.tokenBytes(9_999).length]).toEqual([0, 0]);
  expect([
    ...(await tokenizer.encodeJoined([
      { text: "he", special: false },
      { text: "<|im_end|>", special: true },
    ])),
  ]).toEqual([256, 260]);
});

it("gives any text back", async () => {
  const tokenizer = await small();
  const draw = random(testSeed());
  const texts = Array.from({ length: 20 }, () => randomUnicode(draw, 500));
  const encoded = await tokenizer.encode(texts.map((text) => ({ text, special: false })));
  expect(encoded.map((ids) => tokenizer.decode(ids))).toEqual(texts);
});

it("serves a short text while a long one is being encoded, and keeps the main thread free", async () => {
  const tokenizer = await small();
  const order: string[] = [];
  let worst = 0;
  let last = performance.now();
  const ticker = setInterval(() => {
    const now = performance.now();
    worst = Math.max(worst, now - last);
    last = now;
  }, 1);
  const long = tokenizer
    .encode([{ text: "some words of a long file\n".repeat(100_000), special: false }])
    .then(() => order.push("long"));
  await new Promise((resolve) => setTimeout(resolve, 30));
  await tokenizer.encode([{ text: "hello", special: false }]).then(() => order.push("short"));
  await long;
  clearInterval(ticker);
  console.log(`longest pause of the main thread ${worst.toFixed(1)} ms`);
  expect(order).toEqual(["short", "long"]);
});

it("drops work that is cancelled, and goes on with the rest", async () => {
  const tokenizer = await small();
  const stop = new AbortController();
  const cancelled = tokenizer.encode([{ text: "word ".repeat(1_000_000), special: false }], stop.signal);
  setTimeout(() => stop.abort(), 20);
  await expect(cancelled).rejects.toBeInstanceOf(Cancelled);
  await expect(tokenizer.encode([{ text: "x", special: false }], stop.signal)).rejects.toBeInstanceOf(Cancelled);
  const started = performance.now();
  expect((await tokenizer.encode([{ text: "hello", special: false }]))[0]).toHaveLength(2);
  expect(performance.now() - started).toBeLessThan(2_000);
});

it("refuses work after it was closed, twice without harm", async () => {
  const tokenizer = await small();
  const pending = tokenizer.encode([{ text: "word ".repeat(1_000_000), special: false }]);
  await Promise.all([expect(pending).rejects.toThrow("closed"), tokenizer.dispose()]);
  await tokenizer.dispose();
  await expect(tokenizer.encode([])).rejects.toThrow("closed");
});

describe("a model that cannot be read", () => {
  it("is named as missing or broken", async () => {
    const folder = await temp();
    await expect(workshop.open(path.join(folder, "nowhere.gguf"))).rejects.toMatchObject({ kind: "modelMissing" });
    await writeFile(path.join(folder, "broken.gguf"), "GGUB".repeat(100));
    await expect(workshop.open(path.join(folder, "broken.gguf"))).rejects.toMatchObject({ kind: "modelBroken" });
    await expect(workshop.open(folder)).rejects.toMatchObject({ kind: "modelMissing" });
    await writeFile(path.join(folder, "tokenizer.json"), "{");
    await expect(workshop.open(folder)).rejects.toMatchObject({ kind: "modelBroken" });
    await writeFile(path.join(folder, "tokenizer.json"), JSON.stringify({ model: { type: "NoSuchThing" } }));
    await expect(workshop.open(folder)).rejects.toMatchObject({ kind: "modelUnsupported" });
  });
});

describe("a folder with tokenizer.json", () => {
  it("encodes as the file says and keeps special tokens out of texts", async () => {
    const folder = path.join(await temp(), "model");
    await mkdir(folder);
    const vocab = Object.fromEntries([...alphabet, "he", "ll", "hell"].map((token, id) => [token, id]));
    await writeFile(
      path.join(folder, "tokenizer.json"),
      JSON.stringify({
        added_tokens: [
          { id: 259, content: "<|im_end|>", special: true },
          { id: 261, content: "<|file_sep|>", special: false },
        ],
        normalizer: { type: "NFC" },
        pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, use_regex: true },
        decoder: { type: "ByteLevel" },
        model: { type: "BPE", vocab, merges: ["h e", "l l", "he ll"] },
      }),
    );
    await writeFile(
      path.join(folder, "tokenizer_config.json"),
      JSON.stringify({ eos_token: { content: "<|im_end|>" }, chat_template: "T" }),
    );
    const tokenizer = await workshop.open(folder);
    const [plain, marked, composed] = await tokenizer.encode([
      { text: "hello<|im_end|>", special: false },
      { text: "hello<|im_end|>", special: true },
      { text: "e\u0301", special: false },
    ]);
    expect([...(plain ?? [])]).not.toContain(259);
    expect([...(marked ?? [])]).toEqual([258, "o".charCodeAt(0), 259]);
    expect(tokenizer.decode(composed ?? [])).toBe("\u00e9");
    expect([tokenizer.vocabSize, tokenizer.eosIds, tokenizer.chatTemplate, tokenizer.id("<|file_sep|>")]).toEqual([
      262,
      [259],
      "T",
      261,
    ]);
    expect(tokenizer.tokenBytes(260).length).toBe(0);
  });
});
