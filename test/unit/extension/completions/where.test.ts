import { describe, expect, it } from "vitest";
import { showsDifferenceOf } from "../../../../extension/completions/diffEditor";
import { completesIn, documentSelector } from "../../../../extension/completions/where";

const settings = { enabled: true, automatic: true, languages: { "*": true, markdown: false }, tokensMax: 64 };

describe("where completions are offered", () => {
  it.each(["file", "untitled", "vscode-remote", "vscode-notebook-cell"])("in documents of scheme %s", (scheme) => {
    expect(completesIn({ scheme, languageId: "go" }, settings)).toBe(true);
  });

  it.each(["chatSessionInput", "vscode-scm", "output", "git", "vscode-chat-code-block", "comment", "debug"])(
    "never in documents of scheme %s",
    (scheme) => {
      expect(completesIn({ scheme, languageId: "plaintext" }, settings)).toBe(false);
      expect(documentSelector.map((filter) => filter.scheme)).not.toContain(scheme);
    },
  );

  it("follows the language switches, with * for the rest", () => {
    expect(completesIn({ scheme: "file", languageId: "markdown" }, settings)).toBe(false);
    const onlyRust = { ...settings, languages: { "*": false, rust: true } };
    expect(completesIn({ scheme: "file", languageId: "rust" }, onlyRust)).toBe(true);
    expect(completesIn({ scheme: "file", languageId: "c" }, onlyRust)).toBe(false);
    expect(completesIn({ scheme: "file", languageId: "c" }, { ...settings, languages: {} })).toBe(true);
  });

  it("nowhere when switched off", () => {
    expect(completesIn({ scheme: "file", languageId: "go" }, { ...settings, enabled: false })).toBe(false);
  });
});

describe("a tab that compares", () => {
  const difference = { original: "git:/a.ts", modified: "file:///a.ts" };

  it("is no place for ghost text, on either side", () => {
    for (const uri of ["git:/a.ts", "file:///a.ts"]) expect(showsDifferenceOf({ input: difference }, uri)).toBe(true);
  });

  it("is not taken for one that shows the file, or another file's", () => {
    expect(showsDifferenceOf({ input: difference }, "file:///b.ts")).toBe(false);
    expect(showsDifferenceOf({ input: { uri: "file:///a.ts" } }, "file:///a.ts")).toBe(false);
    expect(showsDifferenceOf({ input: undefined }, "file:///a.ts")).toBe(false);
    expect(showsDifferenceOf(undefined, "file:///a.ts")).toBe(false);
  });
});
