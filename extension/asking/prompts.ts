/**
 * Questions in words that a small code model follows: one plain task, the thing it is about named as the repository
 * names it, the form of the answer last. The repository itself stands before the question and is not repeated.
 *
 * The model is told in English whatever the editor's language is: it was trained on that, and answers in the language
 * of the user's own words.
 */
import type { SlashName } from "./slash";

/** What a question is about. Its lines are pinned in the context where they are known there; else the text is shown. */
export interface Subject {
  /** Relative to the root. */
  readonly path: string;
  /** From 1; null for the whole file or folder. */
  readonly lines: { readonly from: number; readonly to: number } | null;
  /** What the lines declare, such as "storageFee"; "" for a whole file, and where they declare nothing. */
  readonly name: string;
  /** The first line with something in it, which says which part is meant; "" for a whole file. */
  readonly opening: string;
  /** Shown to the model when its context does not hold this text; "" when it does. */
  readonly text: string;
  readonly languageId: string;
}

export interface Question {
  readonly command: SlashName | undefined;
  readonly text: string;
  readonly subjects: readonly Subject[];
  /** What the editor's language services find wrong in the subjects: "src/fees.ts:12: 'x' is not defined". */
  readonly problems: readonly string[];
  /** Of the working tree, for a review; "" when there is none. */
  readonly diff: string;
}

/** The message that the model reads. */
export function promptText(question: Question): string {
  const shown = question.subjects.filter(({ text }) => text !== "").map(pasted);
  return [...shown, taskText(question)].join("\n\n");
}

function taskText(question: Question): string {
  const { command, text } = question;
  const about = subjectsText(question.subjects);
  switch (command) {
    case undefined:
      return about === "" ? text : `${text}\n\n(This is about ${about}.)`;
    case "explain":
      return sentences(
        `Explain ${about === "" ? orElse(text, "what this repository does and how its parts work together") : about}.`,
        "Say what it does step by step, why it is there, and which other files use it.",
        about === "" ? "" : text,
      );
    case "where":
      return sentences(
        `Where in this repository: ${orElse(text, about)}`,
        "Name the file and the function, and quote the lines that show it.",
        text === "" || about === "" ? "" : `This is about ${about}.`,
      );
    case "impact":
      return sentences(
        `Which other files of this repository use ${about === "" ? text : about}, and what would have to change in them if it changed?`,
        "Give a list: one file for each line, with the function that uses it and the reason.",
        about === "" ? "" : text,
      );
    case "tests":
      return sentences(
        `Write tests for ${about === "" ? text : about}.`,
        "Use the test framework and the style of the tests that this repository has already.",
        "Answer with one code block that holds the whole test file.",
        about === "" ? "" : text,
      );
    case "fix":
      return sentences(
        `Find the mistake in ${about === "" ? text : about} and correct it.`,
        problemsText(question.problems),
        "Answer with one code block that holds the corrected code from its first line to its last, then one sentence that says what was wrong.",
        about === "" ? "" : text,
      );
    case "review":
      return sentences(
        "Review this change to the repository. It is not committed yet:",
        fenced(question.diff, "diff"),
        "Name mistakes, forgotten places in other files, and missing tests, each with its file. Say so when you find nothing wrong.",
        text,
      );
    case "docs":
      return sentences(
        `Write a documentation comment that says what ${about === "" ? text : about} does, in the style of the comments in this repository.`,
        "Answer with one code block: first the comment, then below it the code that it documents, unchanged.",
        about === "" ? "" : text,
      );
  }
}

/**
 * "`storageFee` in src/fees.ts and src/config.ts". A small model knows names; told of lines by their numbers, which no
 * file holds, it answers that they do not exist.
 */
function subjectsText(subjects: readonly Subject[]): string {
  const names = subjects.map(({ path, name, opening, text }) => {
    if (name !== "") return `\`${name}\` in ${path}`;
    return text !== "" || opening === "" ? path : `the code in ${path} that begins with \`${opening}\``;
  });
  const last = names.at(-1) ?? "";
  return names.length < 2 ? last : `${names.slice(0, -1).join(", ")} and ${last}`;
}

function pasted({ path, lines, text, languageId }: Subject): string {
  const place = lines === null ? path : `${path}, lines ${lines.from}-${lines.to}`;
  const isCut = text.length > pastedCharactersMax;
  return `${place}:\n${fenced(isCut ? `${text.slice(0, pastedCharactersMax)}\n…` : text, languageId)}`;
}

function problemsText(problems: readonly string[]): string {
  if (problems.length === 0) return "";
  return `The compiler says:\n${bullets(problems)}`;
}

function bullets(lines: readonly string[]): string {
  return lines.map((line) => `- ${line}`).join("\n");
}

function sentences(...parts: readonly string[]): string {
  return parts.filter((part) => part !== "").join("\n");
}

function orElse(text: string, other: string): string {
  return text === "" ? other : text;
}

/** Longest text of one thing that the context does not hold. */
export const pastedCharactersMax = 8_000;

/** With a fence longer than any run of backticks in the text, so that the text cannot end its own fence. */
export function fenced(text: string, languageId: string): string {
  const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map((run) => run[0].length));
  const fence = "`".repeat(longest + 1);
  return `${fence}${languageId}\n${text}\n${fence}`;
}

/** What one may want to ask next, from the lines an answer drew on and what was asked. */
export interface FollowUp {
  readonly command: SlashName | undefined;
  readonly text: string;
}

export function followUpsFor(command: SlashName | undefined, labels: readonly string[]): readonly FollowUp[] {
  const [first] = labels;
  if (first === undefined) return [];
  const file = first.replace(/:\d+(-\d+)?$/, "");
  const next: readonly FollowUp[] = [
    { command: "explain", text: file },
    { command: "impact", text: file },
    { command: "tests", text: file },
  ];
  return next.filter((each) => each.command !== command);
}
