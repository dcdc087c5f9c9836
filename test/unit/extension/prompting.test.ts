import { describe, expect, it } from "vitest";
import { attachedCharactersMax, attachedText, followupsFor } from "../../../extension/prompting";

describe("prompting", () => {
  it("fences an attached text so that it cannot end its own fence", () => {
    const text = "a\n````md\n```\nx\n```\n````";
    const attached = attachedText("notes.md", text, "markdown");
    expect(attached).toBe(`notes.md\n\`\`\`\`\`markdown\n${text}\n\`\`\`\`\``);
  });

  it("cuts a long one", () => {
    const attached = attachedText("a.ts", "x".repeat(attachedCharactersMax + 1), "typescript");
    expect(attached.length).toBeLessThan(attachedCharactersMax + 60);
    expect(attached).toContain("…");
  });

  it("suggests what to ask next from the lines an answer drew on", () => {
    expect(followupsFor([])).toEqual([]);
    expect(followupsFor(["src/a.ts:1-9", "src/b.ts:4"])).toEqual([
      "Explain src/a.ts:1-9",
      "What else uses src/a.ts?",
      "How does src/b.ts:4 fit in?",
    ]);
  });
});
