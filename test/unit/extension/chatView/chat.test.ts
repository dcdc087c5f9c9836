import { describe, expect, it, vi } from "vitest";
import { Attention } from "../../../../extension/attention";
import { Chat } from "../../../../extension/chatView/chat";
import { ChatHistory } from "../../../../extension/chatView/history";
import type { ToView } from "../../../../extension/chatView/messages";
import { plainFailure } from "../../../../extension/errors";
import { Pins } from "../../../../extension/pins";
import { chatResult, ScriptedEngine } from "../../../support/scriptedEngine";

/** An engine whose answers the test writes, and a workspace that keeps nothing. */
function setUp() {
  const engine = new ScriptedEngine();
  const store = { get: (): never => undefined as never, update: () => Promise.resolve() };
  const history = new ChatHistory(store);
  const log = { error: () => undefined };
  const chat = new Chat({ engine, history, log, pins: new Pins(store), attention: new Attention(), nowMs: () => 5 });
  const messages: ToView[] = [];
  chat.onMessage((message) => messages.push(message));
  const asked = (count: number) => vi.waitFor(() => expect(engine.chats).toHaveLength(count));
  return { chat, history, calls: engine.chats, messages, asked };
}

describe("the chat of the view", () => {
  it("tells the view the question, the stages, the pieces and the end, in order", async () => {
    const { chat, calls, messages, asked } = setUp();
    const answer = chat.ask("  Why?  ");
    await asked(1);
    calls[0]?.onDelta({ kind: "stage", stage: "restoring" });
    calls[0]?.onDelta({ kind: "text", text: "Be" });
    calls[0]?.resolve(chatResult("Because."));
    await answer;
    // Twice: as it was typed, and as it was prepared.
    expect(messages.map((message) => message.kind)).toEqual([
      ...["turn", "turn", "turn", "turn"],
      ...["stage", "delta", "turn"],
    ]);
    expect(messages[0]).toMatchObject({ turn: { role: "user", markdown: "Why?" } });
    expect(messages.at(-1)).toMatchObject({ busy: false, turn: { markdown: "Because.", state: "done" } });
    expect(calls[0]?.params.messages).toEqual([{ role: "user", content: "Why?" }]);
  });

  it("keeps what was written when it is stopped", async () => {
    const { chat, calls, messages, asked } = setUp();
    const answer = chat.ask("Why?");
    await asked(1);
    calls[0]?.onDelta({ kind: "text", text: "Half of" });
    chat.stop();
    await answer;
    expect(messages.at(-1)).toMatchObject({ busy: false, turn: { markdown: "Half of", state: "stopped" } });
  });

  it("lets nothing of an old answer into a conversation that was cleared", async () => {
    const { chat, calls, asked } = setUp();
    const first = chat.ask("one");
    await asked(1);
    chat.clear();
    await first;
    const second = chat.ask("two");
    await asked(2);
    calls[0]?.onDelta({ kind: "text", text: "ghost" });
    calls[1]?.resolve(chatResult("2"));
    await second;
    expect(chat.conversation.turns.map((turn) => turn.markdown)).toEqual(["two", "2"]);
  });

  it("explains a failure in the turn", async () => {
    const { chat, calls, messages, asked } = setUp();
    const answer = chat.ask("Why?");
    await asked(1);
    calls[0]?.reject(plainFailure("notIndexed"));
    await answer;
    expect(messages.at(-1)).toMatchObject({
      busy: false,
      turn: { state: "failed", footnote: "Nosa has not read this repository yet." },
    });
  });

  it("asks nothing for an empty question, nor while it answers", async () => {
    const { chat, calls, asked } = setUp();
    await chat.ask("   ");
    void chat.ask("one");
    await chat.ask("two");
    await asked(1);
    expect(calls).toHaveLength(1);
    chat.dispose();
  });

  it("keeps each answer, forks before a question, and goes back to what was kept", async () => {
    const { chat, history, calls, asked } = setUp();
    for (const [index, question] of ["one", "two"].entries()) {
      const answer = chat.ask(question);
      await asked(index + 1);
      calls[index]?.resolve(chatResult(`${question}!`));
      await answer;
    }
    expect(history.chats.map(({ id }) => id)).toEqual([1]);
    expect(chat.fork("t3")).toBe("two");
    expect(chat.conversation.turns.map(({ markdown }) => markdown)).toEqual(["one", "one!"]);
    const answer = chat.ask("three");
    await asked(3);
    expect(calls[2]?.params.messages.map(({ content }) => content)).toEqual(["one", "one!", "three"]);
    calls[2]?.resolve(chatResult("three!"));
    await answer;
    expect(history.chats.map(({ id }) => id)).toEqual([2, 1]);
    const [, old] = history.chats;
    if (old !== undefined) chat.show(old);
    expect(chat.conversation.turns.map(({ markdown }) => markdown)).toEqual(["one", "one!", "two", "two!"]);
    expect(chat.fork("t9")).toBe("");
  });

  it("keeps an answer that is left under way, as far as it came", async () => {
    const { chat, history, calls, asked } = setUp();
    const answer = chat.ask("one");
    await asked(1);
    calls[0]?.onDelta({ kind: "text", text: "Half" });
    chat.clear();
    await answer;
    expect(chat.conversation.turns).toEqual([]);
    expect(
      history.chats.map(({ conversation }) => conversation.turns.map(({ markdown, state }) => [markdown, state])),
    ).toEqual([
      [
        ["one", "done"],
        ["Half", "stopped"],
      ],
    ]);
    expect(chat.id).not.toBe(history.chats[0]?.id);
  });

  it("hands code of an answer over with the path the answer gives for it", async () => {
    const { chat, calls, asked } = setUp();
    const answer = chat.ask("Change it.");
    await asked(1);
    calls[0]?.resolve(chatResult("In `src/a.ts`:\n```ts\nlet a;\n```"));
    await answer;
    expect(chat.codeOf("t2", "let a;\n")?.what).toEqual({ code: "let a;\n", path: "src/a.ts", about: "", lines: null });
    expect(chat.codeOf("t2", "let b;")?.what.path).toBe("");
    expect(chat.codeOf("t9", "let a;")).toBeUndefined();
  });
});
