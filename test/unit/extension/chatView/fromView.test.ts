import { describe, expect, it } from "vitest";
import { parseFromView } from "../../../../extension/chatView/fromView";

describe("messages from the view", () => {
  it.each([
    { kind: "ready" },
    { kind: "stop" },
    { kind: "clear" },
    { kind: "ask", text: "Why?" },
    { kind: "copy", text: "" },
    { kind: "insert", text: "x" },
    { kind: "open", referenceId: "t2/0" },
    { kind: "action", command: "nosa.indexRepository" },
    { kind: "attach" },
    { kind: "detach", attachmentId: "a1" },
    { kind: "fork", turnId: "t1" },
    { kind: "apply", turnId: "t2", text: "let a;" },
  ])("lets $kind through", (message) => {
    expect(parseFromView(message)).toEqual(message);
  });

  it.each([
    null,
    undefined,
    3,
    "ask",
    [],
    {},
    { kind: "ask" },
    { kind: "ask", text: 5 },
    { kind: "open" },
    { kind: "fork" },
    { kind: "apply", text: "let a;" },
    { kind: "apply", turnId: "t2" },
    { kind: "detach", attachmentId: 4 },
    { kind: "eval", text: "x" },
  ])("refuses %j", (message) => {
    expect(parseFromView(message)).toBeUndefined();
  });

  it("drops fields it does not know, and texts without end", () => {
    expect(parseFromView({ kind: "stop", more: 1 })).toEqual({ kind: "stop" });
    expect(parseFromView({ kind: "ask", text: "x".repeat(200_001) })).toBeUndefined();
  });
});
