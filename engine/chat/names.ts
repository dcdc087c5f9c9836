/**
 * A conversation → the names of code that it asks about. Pure.
 *
 * What stands in code marks is a name; outside of them, what no sentence is written with: `snake_case`, `camelCase`,
 * `call(`, `a::b`. A capital in the middle of a sentence may be one too. Blocks of code are not looked through: they
 * are there to be read, and their names are too many to be meant.
 */

import type { AskedName } from "../contexts/named";
import type { ChatMessage } from "../protocol";

/** More are not looked for. */
const namesMax = 32;

/** Shorter ones stand everywhere. */
const lettersMin = 3;
const unsureLettersMin = 4;

/** What was asked last comes first. */
export function namesAskedFor(messages: readonly ChatMessage[]): readonly AskedName[] {
  const found = new Map<string, boolean>();
  const asked = messages.filter(({ role }) => role === "user").reverse();
  for (const { content } of asked) {
    const { quoted, words } = partsOf(content);
    for (const text of quoted) add(found, text, true);
    for (const text of words.filter((each) => each.sure)) add(found, text.text, true);
    for (const text of words.filter((each) => !each.sure)) add(found, text.text, false);
  }
  return [...found].slice(0, namesMax).map(([text, sure]) => ({ text, sure }));
}

function add(found: Map<string, boolean>, text: string, sure: boolean): void {
  if (text.length < (sure ? lettersMin : unsureLettersMin)) return;
  // Its place is that of its first mention; once it is meant as a name it is one everywhere.
  found.set(text, (found.get(text) ?? false) || sure);
}

const fence = /^[ \t]*(```+|~~~+)[^\n]*\n[\s\S]*?(?:^[ \t]*\1[^\n]*$|$(?![\s\S]))/gm;
const codeMarks = /`([^`\n]{1,200})`/g;
const identifier = /[\p{L}_$][\p{L}\p{N}_$]*/gu;

function partsOf(content: string): { readonly quoted: readonly string[]; readonly words: readonly AskedName[] } {
  const text = content.replace(fence, "\n");
  const quoted = [...text.matchAll(codeMarks)].flatMap(([, code = ""]) => code.match(identifier) ?? []);
  const prose = text.replace(codeMarks, " ");
  const words: AskedName[] = [];
  for (const match of prose.matchAll(identifier)) {
    const [word] = match;
    const before = prose.slice(Math.max(0, match.index - 24), match.index);
    const after = prose.slice(match.index + word.length, match.index + word.length + 2);
    if (looksLikeCode(word, before, after)) words.push({ text: word, sure: true });
    else if (/^\p{Lu}/u.test(word) && !beginsSentence(before)) words.push({ text: word, sure: false });
  }
  return { quoted, words };
}

function looksLikeCode(word: string, before: string, after: string): boolean {
  if (/[\p{L}\p{N}]_+[\p{L}\p{N}]/u.test(word) || /[\p{Ll}\p{N}]\p{Lu}/u.test(word) || /^[_$]/.test(word)) return true;
  if (after.startsWith("(") || after === "::" || after === "->") return true;
  return /(?:::|->|[\w)\]]\.|#)$/.test(before) && !/^\p{Lu}/u.test(word);
}

function beginsSentence(before: string): boolean {
  return before.trim() === "" || /[.!?:\n"“(]\s*$/u.test(before) || /(?:^|\n)\s*(?:[-*]|\d+[.)])\s+$/.test(before);
}
