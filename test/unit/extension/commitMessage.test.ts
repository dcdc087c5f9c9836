import { describe, expect, it } from "vitest";
import { messageFrom } from "../../../extension/commitMessage";
import { commitPrompt } from "../../../extension/asking/prompts";

describe("a commit message", () => {
  it.each([
    ["Add a fee for storage", "Add a fee for storage"],
    ["```\nAdd a fee\n\nIt was free.\n```", "Add a fee\n\nIt was free."],
    ["```text\nAdd a fee", "Add a fee"],
    ['"Add a fee"', "Add a fee"],
    ["**Add a fee**\nIt was free.", "Add a fee\n\nIt was free."],
    ["Here is the commit message:\n\n`Add a fee`", "Add a fee"],
    ["Commit message: Add a fee\n\n\n\nIt was free.  \n", "Add a fee\n\nIt was free."],
    ["", ""],
  ])("is what the model says, bare: %j", (answer, message) => {
    expect(messageFrom(answer)).toBe(message);
  });

  it("is asked for with the change, and with the latest ones as examples", () => {
    const prompt = commitPrompt("+  const fee = 3;", ["Open at nine", "Close at ten"]);
    expect(prompt).toContain("```diff\n+  const fee = 3;\n```");
    expect(prompt).toContain("- Open at nine\n- Close at ten");
    expect(commitPrompt("+x", [])).not.toContain("latest messages in this repository:");
  });
});
