/**
 * An encoder from the `tokenizer.json` that lies beside safetensors. That file defines itself what is to be done, normaliser included.
 */

import { readFile } from "node:fs/promises";
import * as path from "node:path";
import { Tokenizer as Library } from "@huggingface/tokenizers";
import * as z from "zod/mini";
import { codeOf, EngineError } from "../errors";
import { Encoder, type Scheme } from "./encoder";
import { endIds, tokenTypes, withMarks, type Vocabulary } from "./vocabulary";

const addedToken = z.object({ id: z.number(), content: z.string(), special: z._default(z.boolean(), false) });
const tokenizerFile = z.looseObject({
  added_tokens: z._default(z.array(addedToken), []),
  model: z.looseObject({ type: z.optional(z.string()) }),
  decoder: z.optional(z.unknown()),
});
const tokenName = z.nullish(z.union([z.string(), z.object({ content: z.string() })]));
const configFile = z.looseObject({
  eos_token: tokenName,
  bos_token: tokenName,
  add_bos_token: z.nullish(z.boolean()),
  chat_template: z.nullish(z.union([z.string(), z.array(z.object({ name: z.string(), template: z.string() }))])),
});

export async function tokenizerJsonEncoder(folder: string): Promise<Encoder> {
  const raw = await readJson(folder, "tokenizer.json");
  if (raw === undefined) {
    throw new EngineError(
      "modelMissing",
      `There is no tokenizer.json in ${folder}: choose a folder that holds a whole model.`,
    );
  }
  const parsed = tokenizerFile.safeParse(raw);
  if (!parsed.success) throw broken(folder, "tokenizer.json is not what its name says");
  const config = configFile.safeParse((await readJson(folder, "tokenizer_config.json")) ?? {});
  if (!config.success) throw broken(folder, "tokenizer_config.json is not what its name says");

  const library = openLibrary(folder, parsed.data);
  const vocabulary = await vocabularyOf(folder, library, parsed.data, config.data);
  return new Encoder(vocabulary, schemeOf(library), vocabulary.addBos ?? false);
}

function openLibrary(folder: string, file: z.infer<typeof tokenizerFile>): Library {
  try {
    // Added tokens are found by the Encoder, and only where they are asked for.
    return new Library(
      { normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null, ...file, added_tokens: [] },
      {},
    );
  } catch (error) {
    throw new EngineError(
      "modelUnsupported",
      `The tokenizer in ${folder} is of a kind Nosa cannot read: choose another model.`,
      {
        cause: error,
      },
    );
  }
}

function schemeOf(library: Library): Scheme {
  const model = library.model;
  return {
    chunks: (text) => [text],
    words: (chunk) => {
      const normal = library.normalizer === null ? chunk : library.normalizer.normalize(chunk);
      return library.pre_tokenizer === null
        ? [normal]
        : library.pre_tokenizer.pre_tokenize(normal, { section_index: 0 });
    },
    encodeWord: (word) =>
      (model?.encode([word]) ?? []).flatMap((token) => model?.tokens_to_ids.get(token) ?? model?.unk_token_id ?? []),
    userDefinedAnywhere: false,
  };
}

async function vocabularyOf(
  folder: string,
  library: Library,
  file: z.infer<typeof tokenizerFile>,
  config: z.infer<typeof configFile>,
): Promise<Vocabulary> {
  const spelling = JSON.stringify(file.decoder ?? null).includes('"ByteLevel"') ? "byteLevel" : "sentencePiece";
  const tokens: string[] = [...(library.model?.vocab ?? [])];
  const added = new Map(file.added_tokens.map((token) => [token.id, token]));
  for (const { id, content } of file.added_tokens) tokens[id] = content;
  const types = Uint8Array.from({ length: tokens.length }, (_, id) => {
    const token = added.get(id);
    if (token !== undefined) return token.special ? tokenTypes.control : tokenTypes.userDefined;
    if (tokens[id] === undefined) return tokenTypes.unused;
    return spelling === "sentencePiece" && /^<0x[0-9A-F]{2}>$/.test(tokens[id]) ? tokenTypes.byte : tokenTypes.normal;
  });
  const whole = Array.from(tokens, (token: string | undefined) => token ?? "");
  const marked = withMarks(whole, types);
  const idOf = (name: string | undefined): number[] => {
    const id = name === undefined ? -1 : whole.indexOf(name);
    return id < 0 ? [] : [id];
  };
  return {
    tokens: whole,
    types: marked,
    spelling,
    addBos: config.add_bos_token ?? undefined,
    bosId: idOf(nameOf(config.bos_token))[0],
    eosIds: endIds(whole, marked, idOf(nameOf(config.eos_token))),
    chatTemplate: await templateOf(folder, config.chat_template),
  };
}

function nameOf(token: z.infer<typeof tokenName>): string | undefined {
  return typeof token === "object" ? token?.content : token;
}

async function templateOf(folder: string, listed: z.infer<typeof configFile>["chat_template"]): Promise<string> {
  if (typeof listed === "string") return listed;
  const named = listed?.find(({ name }) => name === "default") ?? listed?.[0];
  if (named !== undefined) return named.template;
  return (await readText(folder, "chat_template.jinja")) ?? "";
}

async function readJson(folder: string, name: string): Promise<unknown> {
  const text = await readText(folder, name);
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    throw broken(folder, `${name} is not JSON`);
  }
}

/** Undefined when there is no such file. */
async function readText(folder: string, name: string): Promise<string | undefined> {
  try {
    return await readFile(path.join(folder, name), "utf8");
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw broken(folder, `${name} cannot be read`);
  }
}

function broken(folder: string, why: string): EngineError {
  return new EngineError("modelBroken", `The model in ${folder} is damaged (${why}): fetch it again.`);
}
