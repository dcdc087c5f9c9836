import { describe, expect, it } from "vitest";
import type { ChatResult } from "../../../../engine/protocol";
import {
  after,
  before,
  emptyConversation,
  messagesOf,
  streamingTurn,
  turnsMax,
  viewTurn,
  type ChatEvent,
  type Conversation,
  type Turn,
} from "../../../../extension/chatView/conversation";

function result(text: string, more: Partial<ChatResult> = {}): ChatResult {
  return {
    text,
    finish: "stop",
    references: [],
    usage: {
      contextTokens: 12_352,
      promptTokens: 40,
      answerTokens: 30,
      attendedBlocks: 64,
      totalBlocks: 193,
      policy: "nosa",
      blocksRead: 7,
      millis: { restore: 10, prefill: 200, firstToken: 420, decode: 1000 },
    },
    ...more,
  };
}

function told(...events: readonly ChatEvent[]): Conversation {
  return events.reduce(after, emptyConversation);
}

const ask = (text: string): ChatEvent => ({ kind: "asked", text, attachments: [] });

describe("the conversation", () => {
  it("grows an answer piece by piece, then takes the whole text", () => {
    const open = told(ask("Why?"), { kind: "delta", text: "Be" }, { kind: "delta", text: "cause  " });
    expect(streamingTurn(open)?.markdown).toBe("Because  ");
    const done = after(open, { kind: "answered", result: result("Because") });
    expect(done.turns.at(-1)).toMatchObject({ markdown: "Because", state: "done" });
    expect(done.turns.at(-1)?.footnote).toBe(
      "Attended to 64 of 193 blocks · 30 tokens at 30/s · first word after 0.4 s",
    );
    expect(streamingTurn(done)).toBeUndefined();
  });

  it("never changes an earlier value", () => {
    const before = told(ask("a"));
    const copy = structuredClone(before);
    after(before, { kind: "delta", text: "x" });
    expect(before).toEqual(copy);
  });

  it("takes one question at a time", () => {
    const open = told(ask("first"));
    expect(after(open, ask("second"))).toBe(open);
  });

  it("ignores what comes after the answer has ended", () => {
    const done = told(ask("a"), { kind: "answered", result: result("b") });
    expect(after(done, { kind: "delta", text: "late" })).toBe(done);
    expect(after(done, { kind: "failed", message: "late" })).toBe(done);
  });

  it("marks stopped and failed answers and keeps what was written", () => {
    const stopped = told(ask("a"), { kind: "delta", text: "half" }, { kind: "stopped" });
    expect(stopped.turns.at(-1)).toMatchObject({ markdown: "half", state: "stopped", footnote: "Stopped" });
    const failed = told(ask("a"), { kind: "failed", message: "No model." });
    expect(failed.turns.at(-1)).toMatchObject({ state: "failed", footnote: "No model." });
    const cut = told(ask("a"), { kind: "answered", result: result("half", { finish: "cancelled" }) });
    expect(cut.turns.at(-1)).toMatchObject({ state: "stopped" });
  });

  it("shows references best first, once, and none that leaves the repository", () => {
    const reference = (path: string, startLine: number, endLine: number, share: number) => ({
      path,
      startLine,
      endLine,
      share,
    });
    const references = [
      reference("src/a.ts", 3, 9, 0.1),
      reference("src/b.ts", 7, 7, 0.6),
      reference("src/a.ts", 3, 9, 0.05),
      reference("../secret", 1, 2, 0.9),
      reference("/etc/passwd", 1, 2, 0.9),
      reference("src/../../x", 1, 2, 0.9),
    ];
    const done = told(ask("a"), { kind: "answered", result: result("b", { references }) });
    expect(done.turns.at(-1)?.references).toEqual([
      { id: "t2/0", label: "src/b.ts:7", share: 0.6 },
      { id: "t2/1", label: "src/a.ts:3-9", share: 0.1 },
    ]);
  });

  it("tells the engine finished exchanges and the open question", () => {
    const open = told(
      ask("one"),
      { kind: "answered", result: result("1") },
      ask("two"),
      { kind: "failed", message: "x" },
      ask("three"),
      { kind: "delta", text: "part" },
      { kind: "stopped" },
      ask("four"),
      { kind: "stopped" },
      ask("five"),
    );
    expect(messagesOf(open)).toEqual([
      { role: "user", content: "one" },
      { role: "assistant", content: "1" },
      { role: "user", content: "three" },
      { role: "assistant", content: "part" },
      { role: "user", content: "five" },
    ]);
  });

  it("tells the engine what was asked, not what was typed, and shows what it was about", () => {
    const open = told(ask("/explain"), {
      kind: "prepared",
      content: "Explain src/fees.ts.",
      root: "/code/shop",
      attachments: ["src/fees.ts"],
      hint: { about: "file:///code/shop/src/fees.ts", lines: null, path: "" },
    });
    expect(messagesOf(open)).toEqual([{ role: "user", content: "Explain src/fees.ts." }]);
    expect(open.turns[0]).toMatchObject({ markdown: "/explain", attachments: ["src/fees.ts"] });
    expect(open.turns[1]).toMatchObject({ root: "/code/shop", hint: { about: "file:///code/shop/src/fees.ts" } });
    expect(Object.keys(viewTurn(open.turns[0] as Turn))).not.toContain("content");
  });

  it("forks before a question, and leaves the conversation as it was", () => {
    const whole = told(ask("one"), { kind: "answered", result: result("1") }, ask("two"), {
      kind: "answered",
      result: result("2"),
    });
    const [, , second] = whole.turns;
    expect(before(whole, second?.id ?? "").turns.map(({ markdown }) => markdown)).toEqual(["one", "1"]);
    expect(before(whole, "t1").turns).toEqual([]);
    expect(before(whole, "t2")).toBe(whole);
    expect(before(whole, "gone")).toBe(whole);
  });

  it("uses no id twice, also after a clear", () => {
    const again = told(ask("a"), { kind: "stopped" }, { kind: "cleared" }, ask("b"));
    expect(again.turns.map((turn) => turn.id)).toEqual(["t3", "t4"]);
  });

  it("drops the oldest exchanges beyond the maximum, and stays in pairs", () => {
    let conversation = emptyConversation;
    for (let i = 0; i < turnsMax; i += 1) {
      conversation = after(after(conversation, ask(`q${i}`)), { kind: "answered", result: result(`a${i}`) });
    }
    expect(conversation.turns).toHaveLength(turnsMax);
    expect(conversation.turns[0]?.role).toBe("user");
    expect(conversation.turns.at(-1)?.markdown).toBe(`a${turnsMax - 1}`);
  });
});
