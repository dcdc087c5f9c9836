import { describe, expect, it } from "vitest";
import {
  fenced,
  followUpsFor,
  pastedCharactersMax,
  promptText,
  type Question,
  type Subject,
} from "../../../../extension/asking/prompts";
import { parseAsked, slashNames } from "../../../../extension/asking/slash";

const read: Subject = { path: "src/fees.ts", lines: null, name: "", opening: "", text: "", languageId: "typescript" };
const opening = "export function formatCents(";
const selected: Subject = { ...read, lines: { from: 22, to: 24 }, name: "formatCents", opening };
const foreign: Subject = { ...read, path: "notes.md", text: "a\n```\nb", languageId: "markdown" };

function prompt(question: Partial<Question>): string {
  return promptText({ command: undefined, text: "", subjects: [], problems: [], diff: "", ...question });
}

describe("what the model is asked", () => {
  it("is the question itself when nothing else was given", () => {
    expect(prompt({ text: "Where are fees decided?" })).toBe("Where are fees decided?");
  });

  it("names what the context holds, and does not repeat it", () => {
    const text = prompt({ command: "explain", subjects: [selected] });
    expect(text).toContain("Explain `formatCents` in src/fees.ts.");
    const nameless = prompt({ command: "explain", subjects: [{ ...selected, name: "" }] });
    expect(nameless).toContain("the code in src/fees.ts that begins with `export function formatCents(`");
    expect(text).not.toContain("```");
  });

  it("shows what the context does not hold, in a fence it cannot end", () => {
    const text = prompt({ text: "Sum this up.", subjects: [foreign] });
    expect(text.startsWith("notes.md:\n````markdown\na\n```\nb\n````")).toBe(true);
    expect(text).toContain("(This is about notes.md.)");
    const long = prompt({ subjects: [{ ...foreign, text: "x".repeat(pastedCharactersMax + 1) }] });
    expect(long.length).toBeLessThan(pastedCharactersMax + 100);
    expect(long).toContain("…");
  });

  it.each(slashNames)("has a task for /%s with a subject, with words alone, and with both", (command) => {
    for (const question of [
      { subjects: [read] },
      { text: "the retry limit" },
      { subjects: [read], text: "Be brief." },
    ]) {
      const text = prompt({ command, diff: "-a\n+b", ...question });
      expect(text.length).toBeGreaterThan(40);
      expect(text).not.toMatch(/undefined|\s\.(?=\s|$)|(?<!`)``(?!`)/m);
      if (question.text !== undefined) expect(text).toContain(question.text);
      if (question.subjects !== undefined && command !== "review") expect(text).toContain("src/fees.ts");
    }
  });

  it("passes the compiler's complaints on for a fix, and the change for a review", () => {
    const problem = "src/fees.ts:23: 'cent' is not defined";
    expect(prompt({ command: "fix", subjects: [selected], problems: [problem] })).toContain(`- ${problem}`);
    expect(prompt({ command: "review", diff: "-a\n+b" })).toContain("```diff\n-a\n+b\n```");
  });

  it("joins several subjects in one sentence", () => {
    expect(prompt({ command: "explain", subjects: [read, { ...read, path: "src/a.ts" }, selected] })).toContain(
      "Explain src/fees.ts, src/a.ts and `formatCents` in src/fees.ts.",
    );
  });
});

describe("a typed line", () => {
  it.each([
    ["/explain", { command: "explain", text: "" }],
    ["  /where are fees decided? ", { command: "where", text: "are fees decided?" }],
    ["/explained", { command: undefined, text: "/explained" }],
    ["/usr/bin/env", { command: undefined, text: "/usr/bin/env" }],
    ["why /fix?", { command: undefined, text: "why /fix?" }],
  ])("%j", (typed, asked) => expect(parseAsked(typed)).toEqual(asked));
});

describe("what may be asked next", () => {
  it("is about the first file the answer drew on, and not the same again", () => {
    expect(followUpsFor(undefined, [])).toEqual([]);
    expect(followUpsFor("impact", ["src/a.ts:1-9", "src/b.ts:4"])).toEqual([
      { command: "explain", text: "src/a.ts" },
      { command: "tests", text: "src/a.ts" },
    ]);
  });
});

it("a fence is longer than any in the text", () => {
  const text = "````\n``\n`````x";
  const marks = /^`+/.exec(fenced(text, "md"))?.[0].length ?? 0;
  expect(marks).toBe(6);
});
