import { describe, expect, it } from "vitest";
import { parseOptions, parsePlace } from "../../../../engine/terminal/options";

describe("parseOptions", () => {
  it("takes the current folder and the defaults", () => {
    const options = parseOptions("ask", ["what", "is this?"], "/srv/here");
    expect(options).toMatchObject({
      repo: "/srv/here",
      words: ["what", "is this?"],
      json: false,
      why: false,
      temperature: 0,
    });
    expect(options.settings.model).toBe("");
  });

  it("makes paths absolute and leaves ids alone", () => {
    expect(parseOptions("ask", ["--model", "m.gguf", "--repo", "../r", "q"], "/a/b")).toMatchObject({
      repo: "/a/r",
      settings: { model: "/a/b/m.gguf" },
    });
    expect(parseOptions("ask", ["--model", "smollm2-135m", "q"], "/a").settings.model).toBe("smollm2-135m");
  });

  it("gives the answer and the context each their maximum", () => {
    const options = parseOptions("complete", ["--tokens-max", "7", "--context-max", "900", "a:1:1"], "/a");
    expect(options.settings.completions.tokensMax).toBe(7);
    expect(options.settings.contextTokensMax).toBe(900);
  });

  it("takes --why for a question", () => {
    expect(parseOptions("ask", ["--why", "q"], "/a")).toMatchObject({ why: true, words: ["q"] });
  });

  it("refuses what it does not understand, in a sentence", () => {
    for (const words of [["--nope"], ["--tokens-max", "many"], ["--tokens-max", "0"], ["--temperature", "hot"]]) {
      expect(() => parseOptions("ask", words, "/a")).toThrowError(expect.objectContaining({ kind: "badRequest" }));
    }
    expect(() => parseOptions("dance", [], "/a")).toThrowError(expect.objectContaining({ kind: "badRequest" }));
  });
});

describe("parsePlace", () => {
  it("reads FILE:LINE:COLUMN, even when the file has colons", () => {
    expect(parsePlace("src/a.ts:10:3")).toEqual({ file: "src/a.ts", line: 10, column: 3 });
    expect(parsePlace("c:/a.ts:1:2")).toEqual({ file: "c:/a.ts", line: 1, column: 2 });
  });

  it("refuses anything else", () => {
    for (const place of ["", "a.ts", "a.ts:1", "a.ts:0:1", "a.ts:1:0", "a.ts:x:y"]) {
      expect(() => parsePlace(place)).toThrowError(expect.objectContaining({ kind: "badRequest" }));
    }
  });
});
