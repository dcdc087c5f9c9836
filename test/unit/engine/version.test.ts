import { describe, expect, it } from "vitest";
import { isNewer, supersedes } from "../../../engine/version";

describe("isNewer", () => {
  it("compares number by number, not letter by letter", () => {
    expect(isNewer("0.10.0", "0.9.9")).toBe(true);
    expect(isNewer("0.9.9", "0.10.0")).toBe(false);
    expect(isNewer("1.0", "1.0.0")).toBe(false);
    expect(isNewer("1.0.1-beta", "1.0.0")).toBe(true);
    expect(isNewer("1.0.0", "1.0.0-beta")).toBe(false);
  });
});

describe("supersedes", () => {
  const build = (version: string, at: number) => ({ version, build: at });

  it("goes by version first, then by the time of the build, and never both ways", () => {
    expect(supersedes(build("0.2.0", 1), build("0.1.0", 9))).toBe(true);
    expect(supersedes(build("0.1.0", 9), build("0.2.0", 1))).toBe(false);
    expect(supersedes(build("0.1.0", 9), build("0.1.0", 1))).toBe(true);
    expect(supersedes(build("0.1.0", 1), build("0.1.0", 9))).toBe(false);
    expect(supersedes(build("0.1.0", 1), build("0.1.0", 1))).toBe(false);
    expect(supersedes(build("0.1.0", 0), build("0.1.0", 5))).toBe(false);
  });
});
