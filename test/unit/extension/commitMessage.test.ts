import { describe, expect, it } from "vitest";
import { messageFrom } from "../../../extension/commitMessage";
import { changeCharactersMax, commitMessages, isExample } from "../../../extension/asking/commitPrompt";

describe("a commit message", () => {
  it.each([
    ["Add a fee for storage", "Add a fee for storage"],
    ["```\nAdd a fee\n\nIt was free.\n```", "Add a fee\n\nIt was free."],
    ["```text\nAdd a fee", "Add a fee"],
    ['"Add a fee"', "Add a fee"],
    ["**Add a fee**\nIt was free.", "Add a fee\n\nIt was free."],
    ["Here is the commit message:\n\n`Add a fee`", "Add a fee"],
    ["Commit message: Add a fee\n\n\n\nIt was free.  \n", "Add a fee\n\nIt was free."],
    ["Add a fee\n@@ -1,2 +1,3 @@\n+const fee = 3;", "Add a fee"],
    ["Add a fee\n\nIt was free.\ndiff --git a/fee.ts b/fee.ts\n+3", "Add a fee\n\nIt was free."],
    ["```diff\ndiff --git a/fee.ts b/fee.ts\nindex 12ab..34cd 100644\n+3\n```", ""],
    ["", ""],
  ])("is what the model says, bare: %j", (answer, message) => {
    expect(messageFrom(answer)).toBe(message);
  });

  it("is asked for with the change, its files, and messages of other changes before it", () => {
    const messages = commitMessages("+  const fee = 3;", ["src/fees.ts"], []);
    expect(messages.at(-1)).toEqual({
      role: "user",
      content: "Write the commit message of this change to src/fees.ts:\n\n```diff\n+  const fee = 3;\n```",
    });
    expect(messages.map(({ role }) => role).join(" ")).toMatch(/^(user assistant ){3,}user$/);
    const answers = messages.filter(({ role }) => role === "assistant").map(({ content }) => content);
    expect(new Set(answers).size).toBe(answers.length);
    expect(commitMessages("+x", [], []).at(-1)?.content).toMatch(/^Write the commit message of this change:\n/);
  });

  it.each([
    [["Open at nine", "Close at ten", "fix: x"], /^Treat expired entries as missing$/],
    [["feat: open at nine", "fix(door): close", "feat!: y"], /^fix: treat expired entries as missing$/],
    [["fix: Open at nine.", "docs: Close at ten."], /^fix: Treat expired entries as missing\.$/],
    [["open at nine", "close at ten"], /^treat expired entries as missing$/],
    [[], /^Treat expired entries as missing$/],
  ])("is shown in the form of the latest ones: %j", (subjects, first) => {
    expect(commitMessages("+x", [], subjects)[1]?.content).toMatch(first);
  });

  it("is asked for without what only git reads, and never with more than a little of the change", () => {
    const diff = [
      "diff --git a/src/fees.ts b/src/fees.ts",
      "new file mode 100644",
      "index 12ab34c..56de78f 100644",
      "--- /dev/null",
      "+++ b/src/fees.ts",
      "@@ -0,0 +1,2 @@",
      "+const fee = 3;",
      "New file: src/more.ts",
    ];
    const text = (from: string, paths: readonly string[] = []): string =>
      commitMessages(from, paths, []).at(-1)?.content ?? "";
    expect(text(diff.join("\n"))).toContain(
      "```diff\nFile src/fees.ts\n@@ -0,0 +1,2 @@\n+const fee = 3;\nNew file: src/more.ts\n```",
    );
    const many = Array.from({ length: 40 }, (_, index) => `src/file${index}.ts`);
    const long = text("+line\n".repeat(10_000), many);
    expect(long.length).toBeLessThan(changeCharactersMax + 300);
    expect(long).toContain("src/file5.ts and 34 more files:");
  });

  it("is not that of an example", () => {
    expect(isExample("fix: treat expired entries as missing.")).toBe(true);
    expect(isExample("Treat expired parcels as missing")).toBe(false);
    expect(isExample("")).toBe(false);
  });
});
