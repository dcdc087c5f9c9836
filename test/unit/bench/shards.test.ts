import { describe, expect, it } from "vitest";
import { parseShard } from "../../../bench/lib/options.mjs";

describe("parseShard", () => {
  it("reads a share and how many there are", () => {
    expect(parseShard("0/1")).toEqual({ at: 0, of: 1 });
    expect(parseShard("25/26")).toEqual({ at: 25, of: 26 });
  });

  it("refuses what is no share of anything", () => {
    for (const text of ["", "1", "1/1", "3/2", "0/0", "-1/2", "a/b", "1/2/3"]) {
      expect(() => {
        parseShard(text);
      }).toThrow("is no share");
    }
  });
});
