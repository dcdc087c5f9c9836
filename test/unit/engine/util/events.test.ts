import { describe, expect, it, vi } from "vitest";
import { ThrottledEvent } from "../../../../engine/util/events";

describe("ThrottledEvent", () => {
  it("tells at most so often, and never loses the last time", () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
    try {
      const event = new ThrottledEvent(10);
      let told = 0;
      event.on(() => (told += 1));
      for (let step = 0; step < 100; step++) {
        event.fire();
        vi.advanceTimersByTime(10);
      }
      expect(told).toBeGreaterThan(5);
      expect(told).toBeLessThanOrEqual(11);
      const before = told;
      vi.advanceTimersByTime(1_000);
      event.fire();
      vi.advanceTimersByTime(1_000);
      expect(told).toBeGreaterThan(before);
    } finally {
      vi.useRealTimers();
    }
  });

  it("tells nobody who stopped listening, and nobody after it was disposed", () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
    try {
      const event = new ThrottledEvent(10);
      let told = 0;
      const stop = event.on(() => (told += 1));
      stop();
      event.fire();
      vi.advanceTimersByTime(500);
      event.on(() => (told += 1));
      event.fire();
      event.dispose();
      vi.advanceTimersByTime(500);
      expect(told).toBe(0);
    } finally {
      vi.useRealTimers();
    }
  });
});
