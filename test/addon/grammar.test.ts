/** Calls of a random model, held to random schemas: whatever it draws parses, and fits by an independent check. */

import * as path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { toolGrammar } from "../../engine/generation/toolGrammar";
import type { NativeGrammar, NativeModel, TokenBytes } from "../../engine/native/addon";
import { schemaProblem } from "../../extension/jsonSchema";
import { random, testSeed, type Random } from "../support/random";
import { addon, codeOf, greedy, ids, openOptions, tinyModels, tinyVocabulary } from "../support/tinyModel";

const tiny = tinyModels();
let model: NativeModel;

/** The first 256 tokens are bytes, then come some longer ones, the rest are control tokens. */
const longer = [
  "<tool_call>",
  "</tool_call>",
  '{"',
  '": ',
  '", "',
  '"}',
  "}}",
  "true",
  "name",
  "}\n</",
  "\u00e9",
  "[1",
];
const tokens: readonly Buffer[] = Array.from({ length: tinyVocabulary }, (_, id) =>
  id < 256 ? Buffer.from([id]) : Buffer.from(longer[id - 256] ?? "", "utf8"),
);

function tableOf(all: readonly Buffer[]): TokenBytes {
  const offsets = new Uint32Array(all.length + 1);
  all.forEach((token, id) => (offsets[id + 1] = (offsets[id] ?? 0) + token.length));
  return { bytes: new Uint8Array(Buffer.concat(all)), offsets };
}

/** A random model would write strings and lists for ever: it gets few letters and fewer ways to go on than to end. */
const banned = Array.from({ length: tinyVocabulary }, (_, id) => id).filter(
  (id) => id < 256 && !'"]}ae1'.includes(String.fromCharCode(id)),
);

beforeAll(async () => {
  model = await addon().openModel(openOptions(path.join(tiny.folder, "qwen2-F32.gguf")));
});
afterAll(async () => {
  await model.dispose();
  tiny.remove();
});

function schemaOf(dice: Random, levels: number): object {
  const pick = dice.between(0, levels > 0 ? 9 : 5);
  if (pick === 0) return { type: "string" };
  if (pick === 1) return { type: "integer" };
  if (pick === 2) return { type: "number" };
  if (pick === 3) return { type: "boolean" };
  if (pick === 4) return { enum: ["x", "xy", 'q"\n', 4, null].slice(0, dice.between(1, 5)) };
  if (pick === 5) return { type: ["string", "null"] };
  if (pick === 6) return { anyOf: [schemaOf(dice, levels - 1), schemaOf(dice, levels - 1)] };
  if (pick === 7) return { type: "array", items: schemaOf(dice, levels - 1), maxItems: 3 };
  return objectOf(dice, levels - 1);
}

function objectOf(dice: Random, levels: number): object {
  const names = ["a", "ab", "path", 'k"', "\u00e9", ""].filter(() => dice.between(0, 1) === 0);
  return {
    type: "object",
    properties: Object.fromEntries(names.map((name) => [name, schemaOf(dice, levels)])),
    required: names.filter(() => dice.between(0, 1) === 0),
    additionalProperties: false,
  };
}

const open = "<tool_call>";
const close = "</tool_call>";

/** The JSON of the call that the text begins with, once it is whole: a string within may speak of the mark. */
function callText(bytes: Buffer): string | undefined {
  const text = new TextDecoder().decode(bytes);
  for (let end = text.indexOf(close); end >= 0; end = text.indexOf(close, end + 1)) {
    const quotes = text.slice(0, end).replaceAll(/\\./gsu, "").split('"').length - 1;
    if (quotes % 2 === 0) return text.slice(open.length, end);
  }
  return undefined;
}

describe("a model's calls", () => {
  it("need to know the tokens, and refuse rules that make no sense", async () => {
    const rules = toolGrammar({ open: "<c>", close: "</c>", required: true, functions: [{ name: "f", schema: {} }] });
    expect(() => model.createGrammar(rules)).toThrow("bytes of the tokens");
    expect(() => model.setTokenBytes({ bytes: new Uint8Array(3), offsets: new Uint32Array([0, 2]) })).toThrow(
      "offsets",
    );
    model.setTokenBytes(tableOf(tokens.filter((token) => token.toString() !== "}")));
    const unsupported = Promise.resolve().then(() => model.createGrammar(rules));
    expect(await codeOf(unsupported)).toBe("unsupported");
    model.setTokenBytes(tableOf(tokens));
    const badIndex = { ...rules, calls: [{ begin: "{", arguments: 999, end: "}" }] };
    expect(await codeOf(Promise.resolve().then(() => model.createGrammar(badIndex)))).toBe("invalidArgument");
    expect(() => model.createGrammar(rules)).not.toThrow();
    const sequence = await model.createSequence({ basePosition: 0, attends: [] });
    await sequence.setTokens(ids(5));
    const other: NativeGrammar = {};
    expect(await codeOf(sequence.decode(greedy(1, { grammar: { rules: other, from: 5 } })))).toBe("invalidArgument");
    const teacher = Uint32Array.of(1);
    const grammar = { rules: model.createGrammar(rules), from: 5 };
    expect(await codeOf(sequence.decode(greedy(1, { grammar, teacher })))).toBe("invalidArgument");
    await sequence.dispose();
  });

  it("fit their schemas, however random", async () => {
    model.setTokenBytes(tableOf(tokens));
    const dice = random(testSeed());
    let whole = 0;
    for (let round = 0; round < 20; round++) {
      const functions = Array.from({ length: dice.between(1, 3) }, (_, at) => ({
        name: `tool-${at}`,
        schema: objectOf(dice, 3),
      }));
      const use = { open, close, required: true, functions };
      const grammar = { rules: model.createGrammar(toolGrammar(use)), from: 9 };
      const sequence = await model.createSequence({ basePosition: 0, attends: [] });
      await sequence.setTokens(ids(9, round));
      const sampling = {
        temperature: round % 4 === 0 ? 0 : 4,
        topK: round % 3 === 0 ? 20 : 0,
        topP: 1,
        minP: 0,
        repetitionPenalty: 1.1,
        seed: dice.between(0, 1e9),
      };
      const drawn: Buffer[] = [];
      while (drawn.length < 300 && callText(Buffer.concat(drawn)) === undefined) {
        const { steps } = await sequence.decode({
          steps: dice.between(1, 16),
          sampling,
          stopIds: [tinyVocabulary - 1],
          bannedIds: banned,
          drafts: round % 2 === 0,
          grammar,
        });
        drawn.push(...steps.map(({ token }) => tokens[token] ?? Buffer.of()));
      }
      await sequence.dispose();
      const bytes = Buffer.concat(drawn);
      expect(bytes.subarray(0, open.length).toString()).toBe(open);
      const text = callText(bytes);
      if (text === undefined) continue;
      whole += 1;
      expect(text).not.toContain("\ufffd");
      const call = JSON.parse(text) as { name: string; arguments: unknown };
      const tool = functions.find(({ name }) => name === call.name);
      expect(tool).toBeDefined();
      expect([text, schemaProblem(tool?.schema, call.arguments)]).toEqual([text, undefined]);
    }
    expect(whole).toBeGreaterThan(4);
  });
});
