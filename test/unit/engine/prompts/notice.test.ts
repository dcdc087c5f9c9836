import { expect, it } from "vitest";
import { changeNotice } from "../../../../engine/prompts/notice";

it("says which lines of which files are what now", () => {
  const notice = changeNotice([
    { path: "a.ts", kind: "changed", startLine: 3, endLine: 4, text: "let x = 1;\nlet y = 2;\n" },
    { path: "b.ts", kind: "changed", startLine: 7, endLine: 6, text: "" },
    { path: "c.md", kind: "added", startLine: 0, endLine: 0, text: "```\ncode\n```\n" },
    { path: "d.ts", kind: "removed", startLine: 0, endLine: 0, text: "" },
    { path: "e.ts", kind: "changed", startLine: 0, endLine: 0, text: "all" },
  ]);
  expect(notice).toContain("Lines 3 to 4 of a.ts are now:\n\n```\nlet x = 1;\nlet y = 2;\n```");
  expect(notice).toContain("b.ts: lines were removed at line 7.");
  // A fence in the text does not end the one around it.
  expect(notice).toContain("c.md is new:\n\n````\n```\ncode\n```\n````");
  expect(notice).toContain("d.ts was deleted.");
  expect(notice).toContain("e.ts is now:\n\n```\nall\n```");
});
