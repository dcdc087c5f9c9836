import * as os from "node:os";
import { describe, expect, it } from "vitest";
import { coresOf, physicalCores } from "../../../engine/machine";

describe("coresOf", () => {
  it("counts threads of one core once, and the same core of two packages twice", () => {
    const thread = (processor: number, pack: number, core: number): string =>
      `processor\t: ${processor}\nphysical id\t: ${pack}\ncore id\t\t: ${core}\n`;
    expect(coresOf([thread(0, 0, 0), thread(1, 0, 0), thread(2, 0, 1), thread(3, 1, 0)].join("\n"))).toBe(3);
  });

  it("is 0 where the list names no cores", () => {
    expect(coresOf("processor\t: 0\nBogoMIPS\t: 50.00\n")).toBe(0);
    expect(coresOf("")).toBe(0);
  });
});

describe("physicalCores", () => {
  it("is at least one and no more than the process may use", () => {
    expect(physicalCores()).toBeGreaterThanOrEqual(1);
    expect(physicalCores()).toBeLessThanOrEqual(os.availableParallelism());
  });
});
