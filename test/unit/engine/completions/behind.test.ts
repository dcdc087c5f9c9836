import { describe, expect, it } from "vitest";
import { HeldText, textBehind } from "../../../../engine/completions/behind";
import { completionTail } from "../../../../engine/prompts/completion";
import { promptFormat } from "../../../../engine/prompts/format";
import type { CompletionOrder } from "../../../../engine/native/addon";
import { characterTokenizer } from "../../../support/characterTokenizer";

const below = "\nexport function next(): number {\n  return 1;\n}\n";
const above = "import { each } from './each';\n\n";

/** What stands around the cursor, after each key of a burst. */
type Trace = readonly (readonly [before: string, after: string])[];

/** As an editor that closes brackets writes a function, brackets and quotes typed over, Enter pressed between braces. */
const typed: Trace = [
  ["f", ""],
  ["fun", ""],
  ["function sum(", ")"],
  ["function sum(all: number[", "])"],
  ["function sum(all: number[]", ")"],
  ["function sum(all: number[])", ""],
  ["function sum(all: number[]) {", "}"],
  ["function sum(all: number[]) {\n  ", "\n}"],
  ["function sum(all: number[]) {\n  log('", "')\n}"],
  ["function sum(all: number[]) {\n  log('sum'", ")\n}"],
  ["function sum(all: number[]) {\n  log('sum');", "\n}"],
  ["function sum(all: number[]) {\n  log('sum');\n  return all.reduce((a, b) => a + b", ")\n}"],
  ["function sum(all: number[]) {\n  log('sum');\n  return all.reduce((a, b) => a + b);", "\n}"],
  ["function sum(all: number[]) {\n  log('sum');\n  return all.reduce((a, b) => a + b);\n}", ""],
  ["function sum(all: number[]) {\n  log('sum');\n  return all.reduce((a, b) => a + b);\n}\n", ""],
].map(([before = "", after = ""]) => [above + before, `${after}\n${below}`] as const);

const tokenizer = characterTokenizer({
  marks: ["<|im_end|>", "<|file_sep|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"],
  eos: "<|im_end|>",
  chatTemplate: "",
});

/** Tokens to read for each prompt of a trace, what begins as the last prompt did being kept. */
async function tokensRead(trace: Trace, order: CompletionOrder): Promise<readonly number[]> {
  const held = new HeldText();
  let last = new Uint32Array();
  const read: number[] = [];
  for (const [before, after] of trace) {
    const suffix = order === "suffix-first" ? held.shown("a", after, 0).text : textBehind(after, order);
    const { tokens } = await completionTail(tokenizer, promptFormat(tokenizer, order), {
      path: "a.ts",
      prefix: before,
      suffix,
      prefixTokensMax: 1_000,
      suffixTokensMax: 32,
    });
    const changed = tokens.findIndex((token, index) => token !== last[index]);
    read.push(changed < 0 ? 0 : tokens.length - changed);
    last = Uint32Array.from(tokens);
  }
  return read;
}

describe("text behind the cursor", () => {
  it("that a prompt shows first costs a key what it typed, whatever the editor closes meanwhile", async () => {
    const read = await tokensRead(typed, "suffix-first");
    const lengths = typed.map(([before], index) => before.length - (typed[index - 1]?.[0].length ?? 0));
    expect(read.slice(1)).toEqual(lengths.slice(1));
    // Behind what is typed it is read with every key.
    const behindTyped = await tokensRead(typed, "prefix-first");
    for (const [index, length] of lengths.entries()) {
      if (index > 0) expect(behindTyped[index]).toBeGreaterThanOrEqual(length + 30);
    }
  });

  it("is what it was until the place is another, the text there is, or a pause was made", () => {
    const here = `)\n${below}`;
    const show = (uri: string, after: string, nowMs: number) => {
      const held = new HeldText();
      expect(held.shown("a", here, 0)).toEqual({ text: below, linesSkipped: 0 });
      return held.shown(uri, after, nowMs);
    };
    expect(show("a", `\n  }\n})\n${below}`, 100)).toEqual({ text: below, linesSkipped: 2 });
    expect(show("a", `\n  }\n})\n${below}`, 60_000)).toEqual({ text: `  }\n})\n${below}`, linesSkipped: 0 });
    expect(show("b", `\n  }\n})\n${below}`, 100)).toEqual({ text: `  }\n})\n${below}`, linesSkipped: 0 });
    expect(show("a", `\n  other();\n${below}`, 100).text).toBe(`  other();\n${below}`);
    expect(show("a", `\n${below.replace("1", "2")}`, 100).text).toBe(below.replace("1", "2"));
    expect(show("a", below.slice(below.indexOf("{\n") + 1), 100).text).toBe("  return 1;\n}\n");
    // A blank line that was behind the cursor and is not any more says nothing.
    expect(show("a", below, 100)).toEqual({ text: below, linesSkipped: 0 });
    expect(show("a", "", 100).text).toBe("");
  });

  it("is not taken for that of a file's end, which all text begins with", () => {
    const held = new HeldText();
    expect(held.shown("a", "", 0).text).toBe("");
    expect(held.shown("a", `\n${below}`, 0).text).toBe(below);
    expect(held.shown("a", "\n", 0).text).toBe("");
  });

  it("of any length is compared as far as a prompt may show it", () => {
    const long = "call();\n".repeat(10_000);
    const held = new HeldText();
    const { text } = held.shown("a", `\n${long}`, 0);
    expect(text.length).toBeLessThan(10_000);
    expect(held.shown("a", `]\n${long}and more`, 0).text).toBe(text);
    expect(held.shown("a", `\n}\n${long}`, 0)).toEqual({ text, linesSkipped: 1 });
  });

  it("begins, for a model that sees it behind, right at the cursor", () => {
    expect(textBehind(")\nx", "prefix-first")).toBe(")\nx");
    expect(textBehind("\r\nx", "prefix-first")).toBe("x");
    expect(textBehind("\r\nx", "suffix-first")).toBe("x");
    expect(textBehind(");  \r\nx", "suffix-first")).toBe("x");
    expect(textBehind(", more)\nx", "suffix-first")).toBe(", more)\nx");
  });
});
