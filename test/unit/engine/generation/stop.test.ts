import { describe, expect, it } from "vitest";
import { StopMatcher } from "../../../../engine/generation/stop";

function run(stops: string[], pieces: string[]): { text: string; stopped: boolean; shown: string[] } {
  const matcher = new StopMatcher(stops);
  const shown: string[] = [];
  for (const piece of pieces) {
    const step = matcher.push(piece);
    shown.push(step.text);
    if (step.stopped) return { text: shown.join(""), stopped: true, shown };
  }
  shown.push(matcher.end());
  return { text: shown.join(""), stopped: false, shown };
}

describe("StopMatcher", () => {
  it("finds a stop string however the text is cut into pieces", () => {
    const text = "answer<|end|>never shown";
    for (let seed = 0; seed < 200; seed++) {
      const pieces: string[] = [];
      for (let at = 0; at < text.length;) {
        const length = 1 + Math.floor(Math.random() * 5);
        pieces.push(text.slice(at, at + length));
        at += length;
      }
      expect(run(["<|end|>", "zzz"], pieces)).toMatchObject({ text: "answer", stopped: true });
    }
  });

  it("never shows the beginning of a stop string early, and shows it when it came to nothing", () => {
    const { shown, text } = run(["\n\n\n"], ["a\n", "\nb"]);
    expect(shown[0]).toBe("a");
    expect(text).toBe("a\n\nb");
  });

  it("stops at the first of several", () => {
    expect(run(["bc", "ab"], ["xabc"]).text).toBe("x");
  });

  it("holds back for a stop string that overlaps itself", () => {
    expect(run(["aab"], ["aa", "ab"])).toMatchObject({ text: "a", stopped: true });
  });

  it("passes everything through when there is nothing to stop at", () => {
    expect(run([], ["a", "", "b"])).toMatchObject({ text: "ab", stopped: false });
    expect(run([""], ["ab"])).toMatchObject({ text: "ab", stopped: false });
  });
});
