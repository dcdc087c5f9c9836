import { describe, expect, it } from "vitest";
import { mostRead } from "../../../extension/roots";
import { contextStatus } from "../../support/engineStatus";

const context = (root: string, tokens: number) => contextStatus({ root, tokens });

describe("the folder a question is about", () => {
  it("is the open one that was read the most", () => {
    const contexts = [context("/a", 10), context("/b", 300), context("/elsewhere", 9999)];
    expect(mostRead(["/a", "/b"], contexts)).toBe("/b");
  });

  it("is none when nothing was read", () => {
    expect(mostRead(["/a"], [context("/a", 0)])).toBeUndefined();
  });
});
