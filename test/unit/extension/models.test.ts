import { describe, expect, it } from "vitest";
import type { ModelEntry } from "../../../engine/protocol";
import { downloadText, modelItems, recommendedModel } from "../../../extension/models";

const entry: ModelEntry = {
  id: "half",
  name: "Qwen2.5-Coder 0.5B",
  licence: "Apache-2.0",
  bytes: 491_400_000,
  onDisk: false,
  fitsMachine: true,
  recommended: false,
};

describe("models", () => {
  it("says size, licence and what is missing", () => {
    const [item] = modelItems([{ ...entry, fitsMachine: false }], "");
    expect(item?.detail).toBe("491 MB · Apache-2.0 · to be downloaded · too large for this machine");
  });

  it("marks the one in use, and ends with a file of the user's own", () => {
    const items = modelItems([entry, { ...entry, id: "one5", onDisk: true }], "one5");
    expect(items[0]?.label).toContain("$(cloud-download)");
    expect(items[1]?.label).toContain("$(check)");
    expect(items.at(-1)?.choice).toEqual({ kind: "file" });
  });

  it("begins with the recommended one, and leaves the others in the engine's order", () => {
    const items = modelItems(
      [
        { ...entry, id: "large" },
        { ...entry, recommended: true },
        { ...entry, id: "tiny" },
      ],
      "",
    );
    expect(items.map(({ id }) => id).slice(0, 3)).toEqual(["half", "large", "tiny"]);
  });

  it("recommends the recommended, else what fits, else nothing", () => {
    const good = { ...entry, id: "good", recommended: true };
    expect(recommendedModel([entry, good])?.id).toBe("good");
    expect(recommendedModel([{ ...entry, fitsMachine: false }, entry])?.id).toBe("half");
    expect(recommendedModel([{ ...entry, fitsMachine: false }])).toBeUndefined();
  });

  it("shows how much has arrived, and from where", () => {
    const report = { model: "half", stage: "fetching", source: "hub", bytesDone: 1e8, bytesTotal: 4.9e8 } as const;
    expect(downloadText(report)).toBe("100 MB of 490 MB");
    expect(downloadText({ ...report, source: "package" })).toContain("from a package registry");
    expect(downloadText({ ...report, stage: "verifying" })).toBe("checking what has arrived");
  });
});
