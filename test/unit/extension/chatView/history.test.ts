import { describe, expect, it } from "vitest";
import { after, emptyConversation, type Conversation } from "../../../../extension/chatView/conversation";
import { ChatHistory, chatsMax, titleOf } from "../../../../extension/chatView/history";
import { chatResult } from "../../../support/scriptedEngine";

/** As the editor keeps it: through JSON. */
function memento() {
  const kept = new Map<string, string>();
  return {
    kept,
    get: (key: string): never => JSON.parse(kept.get(key) ?? "null") as never,
    update: (key: string, value: unknown) => Promise.resolve(void kept.set(key, JSON.stringify(value))),
  };
}

function talk(question: string, answer: string | undefined): Conversation {
  const open = after(emptyConversation, { kind: "asked", text: question, attachments: ["a.ts"] });
  if (answer === undefined) return after(open, { kind: "delta", text: "half" });
  const references = [{ path: "src/a.ts", startLine: 1, endLine: 2, share: 0.5 }];
  return after(open, { kind: "answered", result: chatResult(answer, { references }) });
}

describe("chats that are kept", () => {
  it("come back as they were, the newest first, and the open one is known", async () => {
    const store = memento();
    const history = new ChatHistory(store);
    await history.keep({ id: 1, atMs: 5, conversation: talk("one", "1") });
    await history.keep({ id: 2, atMs: 6, conversation: talk("two", "2") });
    await history.keep({ id: 1, atMs: 7, conversation: talk("one more", "1") });
    await history.markOpen(2);
    const again = new ChatHistory(store);
    expect(again.chats).toEqual(history.chats);
    expect(again.chats.map(titleOf)).toEqual(["one more", "two"]);
    expect(again.chats[0]?.conversation.turns[1]?.references).toEqual([
      { id: "t2/0", label: "src/a.ts:1-2", share: 0.5 },
    ]);
    expect(again.open?.id).toBe(2);
    expect(again.nextId).toBe(3);
    await again.remove(2);
    expect(new ChatHistory(store).open).toBeUndefined();
  });

  it("end an answer that nobody writes on at", async () => {
    const store = memento();
    await new ChatHistory(store).keep({ id: 1, atMs: 5, conversation: talk("one", undefined) });
    const turn = new ChatHistory(store).chats[0]?.conversation.turns[1];
    expect(turn).toMatchObject({ state: "stopped", markdown: "half" });
  });

  it("are let go beyond the maximum, the oldest first, and an empty one is none", async () => {
    const history = new ChatHistory(memento());
    for (let id = 1; id <= chatsMax + 3; id += 1)
      await history.keep({ id, atMs: id, conversation: talk(`q${id}`, "a") });
    await history.keep({ id: 99, atMs: 99, conversation: emptyConversation });
    expect(history.chats).toHaveLength(chatsMax);
    expect(history.chats[0]?.id).toBe(chatsMax + 3);
  });

  it("survive what another version has written", () => {
    const store = memento();
    for (const value of [null, 3, {}, [1, { id: "x" }, { id: 1, atMs: 0, conversation: {} }]]) {
      store.kept.set("nosa.chats", JSON.stringify(value));
      expect(new ChatHistory(store).chats).toEqual([]);
    }
  });
});
