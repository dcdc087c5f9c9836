/**
 * How llama.cpp cuts text into words before merging, by the name that a GGUF file gives under `tokenizer.ggml.pre`.
 *
 * Facts from llama.cpp's src/llama-vocab.cpp; each name here is compared with it in test/oracle/tokenizer.test.ts. A name that is not here is
 * refused, because a tokenizer that is nearly right makes a model quietly worse.
 */

export interface PreTokenizer {
  /** Applied in order: each cuts the pieces that the one before left. What lies between matches stays as a piece of its own. */
  readonly patterns: readonly RegExp[];
  /** A word that is a token as it stands is not merged step by step. */
  readonly ignoreMerges: boolean;
  /** Whether the model wants its begin-of-text token when the file does not say. */
  readonly addBos: boolean;
}

// llama.cpp's \s is Unicode's White_Space, which is not JavaScript's \s: that has U+FEFF and lacks U+0085.
const space = "\\p{White_Space}";
const noSpace = "\\P{White_Space}";

const gpt2 = `'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^${space}\\p{L}\\p{N}]+|${space}+(?!${noSpace})|${space}+`;

const contractions = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])";

/** The family that began with cl100k: they differ in how many digits make a number. */
function cl100k(digits: string): string {
  return (
    `${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^${space}\\p{L}\\p{N}]+[\\r\\n]*|` +
    `${space}*[\\r\\n]+|${space}+(?!${noSpace})|${space}+`
  );
}

interface Family {
  readonly names: readonly string[];
  readonly patterns: readonly string[];
  readonly ignoreMerges?: boolean;
  readonly addBos?: boolean;
}

const families: readonly Family[] = [
  { names: ["qwen2", "stablelm2", "hunyuan", "megrez"], patterns: [cl100k("\\p{N}")] },
  { names: ["deepseek-r1-qwen"], patterns: [cl100k("\\p{N}")] },
  {
    names: ["llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral"],
    patterns: [cl100k("\\p{N}{1,3}")],
    ignoreMerges: true,
    addBos: true,
  },
  { names: ["dbrx", "smaug-bpe"], patterns: [cl100k("\\p{N}{1,3}")] },
  { names: ["gpt-2", "phi-2", "mpt", "olmo", "jina-es", "jina-de", "roberta-bpe"], patterns: [gpt2] },
  { names: ["starcoder", "refact", "command-r", "smollm", "codeshell", "exaone"], patterns: ["\\p{N}", gpt2] },
  {
    names: ["default", ""],
    patterns: ["[\\p{P}\\$\\+<=>\\^~\\|]+", gpt2, "\\p{N}+", "[0-9][0-9][0-9]"],
  },
];

/** Undefined for a name that is not known. */
export function preTokenizer(name: string): PreTokenizer | undefined {
  const family = families.find(({ names }) => names.includes(name));
  if (family === undefined) return undefined;
  return {
    patterns: family.patterns.map((source) => new RegExp(source, "gu")),
    ignoreMerges: family.ignoreMerges ?? false,
    addBos: family.addBos ?? false,
  };
}

export function preTokenizerNames(): readonly string[] {
  return families.flatMap(({ names }) => names);
}
