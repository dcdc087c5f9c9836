import { describe, expect, it } from "vitest";
import { bytesText, countText, durationText, percentOf, filesText } from "../../../../extension/util/format";

describe("numbers for people", () => {
  it.each([
    [0, "0"],
    [999, "999"],
    [1000, "1k"],
    [12_345, "12.3k"],
    [99_960, "100k"],
    [999_400, "999k"],
    [999_600, "1M"],
    [1_250_000, "1.3M"],
  ])("counts %i as %s", (count, text) => {
    expect(countText(count)).toBe(text);
  });

  it.each([
    [0, "0 B"],
    [999, "999 B"],
    [999.6, "1 kB"],
    [491_400_000, "491 MB"],
    [1_230_000_000, "1.2 GB"],
    [5e15, "5000 TB"],
  ])("weighs %d as %s", (bytes, text) => {
    expect(bytesText(bytes)).toBe(text);
  });

  it.each([
    [0, "1 s"],
    [59.2, "60 s"],
    [60, "1 min"],
    [61, "2 min"],
    [3600, "1 h"],
    [3900, "1 h 5 min"],
  ])("times %d as %s", (seconds, text) => {
    expect(durationText(seconds)).toBe(text);
  });

  it("never claims more than all, nor divides by nothing", () => {
    expect(percentOf(5, 0)).toBe(0);
    expect(percentOf(11, 10)).toBe(100);
    expect(percentOf(999, 1000)).toBe(99);
  });

  it("knows one from many", () => {
    expect([filesText(1), filesText(0), filesText(2)]).toEqual(["1 file", "0 files", "2 files"]);
  });
});
