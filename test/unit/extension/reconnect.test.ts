import { describe, expect, it } from "vitest";
import { isFinal, maxFailures, pauseMs } from "../../../extension/reconnect";

describe("reconnecting", () => {
  it("waits longer each time, and not for ever", () => {
    const pauses = Array.from({ length: 20 }, (_, i) => pauseMs(i + 1));
    expect(pauses.slice(0, 4)).toEqual([250, 500, 1000, 2000]);
    expect(Math.max(...pauses)).toBe(8000);
    expect(pauses.slice(0, maxFailures).reduce((sum, ms) => sum + ms)).toBeLessThan(20_000);
  });

  it("does not try again what cannot get better", () => {
    expect(isFinal("versionMismatch")).toBe(true);
    expect(isFinal("connectionLost")).toBe(false);
  });
});
