import { describe, expect, it } from "vitest";
import type { ContextStatus } from "../../../engine/protocol";
import { mostRead } from "../../../extension/roots";

function context(root: string, tokens: number): ContextStatus {
  return {
    root,
    tokens,
    files: 1,
    complete: true,
    attendedBlocks: 0,
    totalBlocks: 0,
    policy: "full",
    blocksRead: 0,
    selection: "adapter",
  };
}

describe("the folder a question is about", () => {
  it("is the open one that was read the most", () => {
    const contexts = [context("/a", 10), context("/b", 300), context("/elsewhere", 9999)];
    expect(mostRead(["/a", "/b"], contexts)).toBe("/b");
  });

  it("is none when nothing was read", () => {
    expect(mostRead(["/a"], [context("/a", 0)])).toBeUndefined();
  });
});
