import { describe, expect, it } from "vitest";
import { isNewer } from "../../../engine/version";

describe("isNewer", () => {
  it("compares number by number, not letter by letter", () => {
    expect(isNewer("0.10.0", "0.9.9")).toBe(true);
    expect(isNewer("0.9.9", "0.10.0")).toBe(false);
    expect(isNewer("1.0", "1.0.0")).toBe(false);
    expect(isNewer("1.0.1-beta", "1.0.0")).toBe(true);
    expect(isNewer("1.0.0", "1.0.0-beta")).toBe(false);
  });
});
