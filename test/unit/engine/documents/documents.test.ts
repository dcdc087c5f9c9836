import { describe, expect, it } from "vitest";
import { limits } from "../../../../engine/config";
import { Documents, filePath, pathWithin } from "../../../../engine/documents/documents";

describe("Documents", () => {
  it("applies incremental changes in order", () => {
    const documents = new Documents();
    documents.open("file:///a.ts", "typescript", 1, "let a = 1;\n");
    documents.change("file:///a.ts", 2, [
      { range: { start: { line: 0, character: 8 }, end: { line: 0, character: 9 } }, text: "22" },
      { range: { start: { line: 1, character: 0 }, end: { line: 1, character: 0 } }, text: "b" },
    ]);
    expect(documents.get("file:///a.ts")?.getText()).toBe("let a = 22;\nb");
    expect(documents.get("file:///a.ts")?.version).toBe(2);
  });

  it("ignores changes of what is not open", () => {
    const documents = new Documents();
    documents.change("file:///a.ts", 2, [{ text: "x" }]);
    expect(documents.get("file:///a.ts")).toBeUndefined();
  });

  it("forgets the oldest beyond its maximum, and keeps no giant", () => {
    const documents = new Documents();
    for (let index = 0; index <= limits.openDocumentsMax; index++) documents.open(`file:///${index}`, "x", 1, "");
    expect(documents.size).toBe(limits.openDocumentsMax);
    expect(documents.get("file:///0")).toBeUndefined();
    documents.open("file:///giant", "x", 1, "x".repeat(limits.documentCharactersMax + 1));
    expect(documents.get("file:///giant")).toBeUndefined();
  });
});

describe("filePath", () => {
  it("knows files from everything else, and survives nonsense", () => {
    expect(filePath("file:///a%20b.ts")).toBe("/a b.ts");
    expect(filePath("untitled:Untitled-1")).toBeUndefined();
    expect(filePath("file:///%")).toBeUndefined();
  });
});

describe("pathWithin", () => {
  it("is undefined outside of the root, and for the root itself", () => {
    expect(pathWithin("/r", "/r/a/b.ts")).toBe("a/b.ts");
    expect(pathWithin("/r", "/r")).toBeUndefined();
    expect(pathWithin("/r", "/rest/a.ts")).toBeUndefined();
    expect(pathWithin("/r", "/r/..hidden/a")).toBe("..hidden/a");
  });
});
