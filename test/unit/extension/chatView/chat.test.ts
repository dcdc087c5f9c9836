import { describe, expect, it } from "vitest";
import { Chat } from "../../../../extension/chatView/chat";
import type { ToView } from "../../../../extension/chatView/messages";
import { plainFailure } from "../../../../extension/errors";
import { chatResult, ScriptedEngine } from "../../../support/scriptedEngine";

/** An engine whose answers the test writes. */
function setUp() {
  const engine = new ScriptedEngine();
  const log = { error: () => undefined } as unknown as ConstructorParameters<typeof Chat>[1];
  const chat = new Chat(engine, log);
  const messages: ToView[] = [];
  chat.onMessage((message) => messages.push(message));
  return { chat, calls: engine.chats, messages };
}

describe("the chat of the view", () => {
  it("tells the view the question, the stages, the pieces and the end, in order", async () => {
    const { chat, calls, messages } = setUp();
    const asked = chat.ask("  Why?  ");
    calls[0]?.onDelta({ kind: "stage", stage: "restoring" });
    calls[0]?.onDelta({ kind: "text", text: "Be" });
    calls[0]?.resolve(chatResult("Because."));
    await asked;
    expect(messages.map((message) => message.kind)).toEqual(["turn", "turn", "stage", "delta", "turn"]);
    expect(messages[0]).toMatchObject({ turn: { role: "user", markdown: "Why?" } });
    expect(messages.at(-1)).toMatchObject({ busy: false, turn: { markdown: "Because.", state: "done" } });
    expect(calls[0]?.params.messages).toEqual([{ role: "user", content: "Why?" }]);
  });

  it("keeps what was written when it is stopped", async () => {
    const { chat, calls, messages } = setUp();
    const asked = chat.ask("Why?");
    calls[0]?.onDelta({ kind: "text", text: "Half of" });
    chat.stop();
    await asked;
    expect(messages.at(-1)).toMatchObject({ busy: false, turn: { markdown: "Half of", state: "stopped" } });
  });

  it("lets nothing of an old answer into a conversation that was cleared", async () => {
    const { chat, calls } = setUp();
    const first = chat.ask("one");
    chat.clear();
    await first;
    const second = chat.ask("two");
    calls[0]?.onDelta({ kind: "text", text: "ghost" });
    calls[1]?.resolve(chatResult("2"));
    await second;
    expect(chat.conversation.turns.map((turn) => turn.markdown)).toEqual(["two", "2"]);
  });

  it("explains a failure in the turn", async () => {
    const { chat, calls, messages } = setUp();
    const asked = chat.ask("Why?");
    calls[0]?.reject(plainFailure("notIndexed"));
    await asked;
    expect(messages.at(-1)).toMatchObject({
      busy: false,
      turn: { state: "failed", footnote: "Nosa has not read this repository yet." },
    });
  });

  it("asks nothing for an empty question, nor while it answers", async () => {
    const { chat, calls } = setUp();
    await chat.ask("   ");
    void chat.ask("one");
    await chat.ask("two");
    expect(calls).toHaveLength(1);
    chat.dispose();
  });
});
