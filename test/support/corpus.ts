/**
 * Text to tokenise: real code from the installed packages, and random Unicode that no file would hold.
 */

import { readdirSync, readFileSync } from "node:fs";
import * as path from "node:path";
import type { Random } from "./random";

const kinds = new Set([
  ".ts",
  ".js",
  ".mjs",
  ".cjs",
  ".md",
  ".json",
  ".css",
  ".h",
  ".cc",
  ".c",
  ".py",
  ".gypi",
  ".html",
  ".yml",
]);

/** `characters` of code out of node_modules, from files chosen at random. */
export function realCode(random: Random, characters: number): string {
  const parts: string[] = [];
  let size = 0;
  for (let tries = 0; size < characters && tries < 20_000; tries++) {
    const file = randomFile(random, path.resolve("node_modules"));
    if (file === undefined) continue;
    const text = readFileSync(file, "utf8").slice(0, 40_000);
    parts.push(text);
    size += text.length;
  }
  return parts.join("\n").slice(0, characters);
}

/** A walk down from `folder`; undefined when it ends on something that is not text. */
function randomFile(random: Random, folder: string): string | undefined {
  let at = folder;
  for (let depth = 0; depth < 12; depth++) {
    const entries = readdirSync(at, { withFileTypes: true });
    if (entries.length === 0) return undefined;
    const entry = random.pick(entries);
    at = path.join(at, entry.name);
    if (entry.isFile()) return kinds.has(path.extname(entry.name)) ? at : undefined;
    if (!entry.isDirectory()) return undefined;
  }
  return undefined;
}

/** First and last code point of what random text is drawn from, common and rare, assigned and not. */
const ranges: readonly (readonly [number, number])[] = [
  [0x20, 0x7e],
  [0x09, 0x0d],
  [0x30, 0x39],
  [0x20, 0x20],
  [0x41, 0x5a],
  [0x21, 0x2f],
  [0x00, 0x1f],
  [0x80, 0x24f],
  [0x300, 0x36f],
  [0x370, 0x52f],
  [0x590, 0x6ff],
  [0x900, 0x97f],
  [0xe00, 0xe7f],
  [0x1680, 0x1680],
  [0x2000, 0x20cf],
  [0x2150, 0x218b],
  [0x2460, 0x24ff],
  [0x3000, 0x30ff],
  [0x3220, 0x32b0],
  [0x4e00, 0x9fff],
  [0xac00, 0xd7a3],
  [0xfe00, 0xfe0f],
  [0xfeff, 0xfeff],
  [0x85, 0x85],
  [0x1d400, 0x1d7ff],
  [0x1f300, 0x1faff],
  [0x0, 0xffff],
  [0x10000, 0x1ffff],
  [0x20000, 0x33fff],
  [0xe0000, 0x10ffff],
];

export function randomUnicode(random: Random, characters: number): string {
  const parts: string[] = [];
  let size = 0;
  while (size < characters) {
    const [low, high] = random.pick(ranges);
    for (let left = random.between(1, 6); left > 0; left--) {
      const point = random.between(low, high);
      if (point >= 0xd800 && point <= 0xdfff) continue;
      const character = String.fromCodePoint(point);
      parts.push(character);
      size += character.length;
    }
  }
  return parts.join("");
}

/** Shapes that files do have and that regular expressions and merges find hard. */
export function awkwardText(random: Random): string {
  const indent = Array.from(
    { length: 400 },
    () => " ".repeat(random.between(0, 80)) + random.pick(["x", "}", "// é", "\t\ty", ""]),
  );
  const digits = Array.from({ length: 400 }, () => String(random.between(0, 2 ** 30)).repeat(random.between(1, 4)));
  const emoji = ["👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "é", "ﬁ", "ß", "İ", "ſ", "ⅷ", "½", "²"];
  const marks = Array.from({ length: 400 }, () =>
    random.pick([
      ...emoji,
      "it's",
      "WE'LL",
      "don'T",
      "'s",
      "\u00a0",
      "\u2028",
      "\u200b",
      "```",
      "</s>",
      "<|im_end|>",
      "<file_sep>",
    ]),
  );
  return [
    indent.join("\r\n"),
    digits.join(random.pick([" ", ",", "\n\n\n"])),
    marks.join(" "),
    marks.join(""),
    "\r\r\n\n\r\n \t \n",
    "a\u0301\u0301 e\u0301",
  ].join("\n");
}
