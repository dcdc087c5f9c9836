import { describe, expect, it } from "vitest";
import type { ToView, ViewTurn } from "../../../../extension/chatView/messages";
import { emptyPage, lastQuestion, received, type PageState } from "../../../../media/chat/state";

const question: ViewTurn = {
  id: "t1",
  role: "user",
  markdown: "Why?",
  attachments: [],
  references: [],
  footnote: "",
  state: "done",
};
const answer: ViewTurn = { ...question, id: "t2", role: "assistant", markdown: "", state: "streaming" };

function after(...messages: readonly ToView[]): PageState {
  return messages.reduce(received, emptyPage);
}
const begun: readonly ToView[] = [
  { kind: "turn", turn: question, busy: true },
  { kind: "turn", turn: answer, busy: true },
];

describe("the page's state", () => {
  it("follows an answer from its stage to its end", () => {
    const waiting = after(...begun, { kind: "stage", turnId: "t2", text: "Loading the model" });
    expect(waiting).toMatchObject({ busy: true, stage: "Loading the model" });
    const writing = [
      { kind: "delta", turnId: "t2", text: "Be" } as const,
      { kind: "delta", turnId: "t2", text: "cause" } as const,
    ];
    const open = writing.reduce<PageState>(received, waiting);
    expect(open).toMatchObject({ stage: "", turns: [question, { markdown: "Because" }] });
    const done = received(open, {
      kind: "turn",
      turn: { ...answer, markdown: "Because.", state: "done" },
      busy: false,
    });
    expect(done).toMatchObject({ busy: false, turns: [question, { markdown: "Because.", state: "done" }] });
  });

  it("keeps turns that did not change the same objects, so that they are not drawn again", () => {
    const open = after(...begun);
    const next = received(open, { kind: "delta", turnId: "t2", text: "x" });
    expect(next.turns[0]).toBe(open.turns[0]);
    expect(received(open, { kind: "delta", turnId: "gone", text: "x" }).turns).toEqual(open.turns);
  });

  it("ignores the stage of another turn", () => {
    expect(after(...begun, { kind: "stage", turnId: "t0", text: "late" }).stage).toBe("");
  });

  it("is replaced whole by a state, and keeps the conversation under a new banner", () => {
    const banner = { text: "ready", action: null };
    const state = after({ kind: "state", turns: [question], banner, attachments: [], busy: false });
    expect(state.turns).toEqual([question]);
    expect(received(state, { kind: "banner", banner: { text: "other", action: null } }).turns).toBe(state.turns);
  });

  it("finds the last question", () => {
    expect(lastQuestion(emptyPage)).toBe("");
    expect(lastQuestion(after(...begun))).toBe("Why?");
  });
});
