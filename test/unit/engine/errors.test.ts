import { describe, expect, it } from "vitest";
import { codeOf, EngineError, toEngineError } from "../../../engine/errors";

const withCode = (code: string): Error => Object.assign(new Error("A sentence."), { code });

describe("toEngineError", () => {
  it("keeps an engine error as it is", () => {
    const error = new EngineError("notIndexed", "Index first.");
    expect(toEngineError(error)).toBe(error);
  });

  it("keeps the meaning and the sentence of native errors", () => {
    const kinds = {
      notFound: "modelMissing",
      corrupt: "modelBroken",
      unsupported: "modelUnsupported",
      outOfMemory: "outOfMemory",
      noSpace: "noSpace",
    };
    for (const [code, kind] of Object.entries(kinds)) {
      expect(toEngineError(withCode(code))).toMatchObject({ kind, message: "A sentence." });
    }
  });

  it("says what to do when the disk is full or memory is short", () => {
    expect(toEngineError(withCode("ENOSPC"))).toMatchObject({
      kind: "noSpace",
      message: expect.stringContaining("free some space") as string,
    });
    expect(toEngineError(withCode("ENOMEM")).kind).toBe("outOfMemory");
  });

  it("takes everything else for a fault of the engine", () => {
    for (const thrown of [new Error("oops"), "text", undefined, null, { code: 5 }]) {
      expect(toEngineError(thrown).kind).toBe("internal");
    }
  });
});

describe("codeOf", () => {
  it("is empty for what has no code", () => {
    for (const thrown of [undefined, null, "x", {}, { code: 3 }]) expect(codeOf(thrown)).toBe("");
    expect(codeOf(withCode("ENOENT"))).toBe("ENOENT");
  });
});
