import type { WorkspaceFolder } from "vscode";
import { Uri } from "vscode";
import { describe, expect, it } from "vitest";
import { referenceLabel, referenceLocation, shownReferences } from "../../../extension/references";

const reference = { path: "src/store.ts", startLine: 12, endLine: 40, share: 0.3 };

describe("references", () => {
  it("are named by path and lines", () => {
    expect(referenceLabel(reference)).toBe("src/store.ts:12-40");
    expect(referenceLabel({ ...reference, endLine: 12 })).toBe("src/store.ts:12");
  });

  it("count lines from 1, where the editor counts from 0", () => {
    const folder = { uri: Uri.file("/code/shop") } as WorkspaceFolder;
    const location = referenceLocation(folder, reference);
    expect(location.uri.fsPath).toBe("/code/shop/src/store.ts");
    expect([location.range.start.line, location.range.end.line]).toEqual([11, 39]);
  });

  it("are at most twelve", () => {
    const many = Array.from({ length: 40 }, (_, i) => ({ ...reference, startLine: i + 1, share: i / 40 }));
    const shown = shownReferences(many);
    expect(shown).toHaveLength(12);
    expect(shown[0]?.startLine).toBe(40);
  });
});
