import { describe, expect, it } from "vitest";
import { Curve } from "../../../bench/lib/curve.mjs";

const points = [1, 4_096, 8_192, 16_384, 24_576, 32_256];
const line = (position: number): number => 2 + position / 1_000;
const straight = new Curve(
  points.map((position) => ({ position, prefill: line(position), decode: 3 * line(position) })),
);

describe("Curve", () => {
  it("goes on as a line beyond what was measured", () => {
    expect(straight.decodeAt(131_072)).toBeCloseTo(3 * line(131_072), 6);
    expect(straight.decodeAt(20_000)).toBeCloseTo(3 * line(20_000), 6);
    expect(straight.bend).toBeCloseTo(0, 9);
  });

  it("adds up the cost of a whole prompt, where it was measured and where not", () => {
    for (const tokens of [4_000, 32_768, 131_072]) {
      const exact = 2 * tokens + tokens ** 2 / 2_000;
      expect(straight.prefillOf(tokens) / exact).toBeCloseTo(1, 4);
    }
  });

  it("tells when the cost does not lie on a line", () => {
    const bent = new Curve(
      points.map((position) => ({ position, prefill: position === 24_576 ? 40 : line(position), decode: 1 })),
    );
    expect(bent.bend).toBeCloseTo(40 / line(24_576) - 1, 6);
  });
});
