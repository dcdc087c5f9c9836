import { describe, expect, it } from "vitest";
import { otherAssistants } from "../../../../extension/completions/otherAssistants";
import { Snooze } from "../../../../extension/completions/snooze";
import { statsText } from "../../../../extension/completions/statsText";

describe("snoozing", () => {
  it("ends by itself, or when told", () => {
    let nowMs = 0;
    const snooze = new Snooze(() => nowMs);
    expect(snooze.active).toBe(false);
    snooze.start(5);
    expect(snooze.minutesLeft).toBe(5);
    nowMs = 4 * 60_000 + 1;
    expect(snooze.minutesLeft).toBe(1);
    nowMs = 5 * 60_000;
    expect(snooze.active).toBe(false);
    snooze.start(60);
    snooze.end();
    expect(snooze.minutesLeft).toBe(0);
  });
});

describe("other assistants", () => {
  it("are known by their ids in any case, each named once", () => {
    expect(otherAssistants(["GitHub.copilot", "github.copilot-chat", "some.theme", "TabbyML.vscode-tabby"])).toEqual([
      "GitHub Copilot",
      "Tabby",
    ]);
  });
});

describe("what a completion cost", () => {
  it("names tokens and stages", () => {
    const stats = {
      contextTokens: 9_000,
      attendedTokens: 4_096,
      blocksRead: 77,
      promptTokens: 310,
      promptTokensRead: 45,
      tokens: 12,
      cached: false,
      millis: { queue: 1, prefill: 220, decode: 240 },
    };
    const text = statsText(stats, 470.4);
    const parts = ["written: 12", "310", "45 of them new", "9000", "4096 tokens attended", "77 blocks fetched"];
    for (const part of [...parts, "470 ms", "1 waiting", "220 reading", "240 writing"]) {
      expect(text).toContain(part);
    }
    expect(statsText({ ...stats, cached: true }, 3)).toContain("3 ms");
  });
});
