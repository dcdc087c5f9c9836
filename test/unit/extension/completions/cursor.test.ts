import { Position, type TextDocument } from "vscode";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Cursor, type Looked } from "../../../../extension/completions/cursor";

function setUp({ isAnswered = true } = {}) {
  let nowMs = 0;
  const near: string[] = [];
  const cursor = new Cursor({
    isAnswered: () => isAnswered,
    nowMs: () => nowMs,
    onNear: (_document, { line, character }) => near.push(`${line}:${character}`),
  });
  const document = { version: 1 };
  const at = (line: number, character: number, isEmpty = true): Looked => ({
    document: document as unknown as TextDocument,
    selections: [{ active: new Position(line, character), isEmpty }],
  });
  const typed = (line: number, character: number): void => {
    document.version += 1;
    cursor.moved(at(line, character));
  };
  return { cursor, document, near, at, typed, pass: (ms: number) => (nowMs += ms) };
}

describe("the cursor", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it("is told with each key, at once", () => {
    const { cursor, near, at, typed } = setUp();
    cursor.moved(at(0, 0));
    typed(0, 1);
    typed(0, 2);
    expect(near).toEqual(["0:1", "0:2"]);
  });

  it("is told where it comes to rest, not where it passes through", async () => {
    const { cursor, near, at, typed } = setUp();
    cursor.moved(at(0, 0));
    typed(0, 1);
    for (const line of [1, 2, 3]) {
      cursor.moved(at(line, 0));
      await vi.advanceTimersByTimeAsync(50);
    }
    expect(near).toEqual(["0:1"]);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(near).toEqual(["0:1", "3:0"]);
  });

  it("is not told while somebody reads, nor at what is selected, nor where nobody answers", async () => {
    const { cursor, near, at, typed, pass } = setUp();
    cursor.moved(at(7, 0));
    await vi.advanceTimersByTimeAsync(1_000);
    typed(7, 1);
    cursor.moved(at(7, 0, false));
    await vi.advanceTimersByTimeAsync(1_000);
    pass(61_000);
    cursor.moved(at(5, 0));
    await vi.advanceTimersByTimeAsync(1_000);
    expect(near).toEqual(["7:1"]);

    const unanswered = setUp({ isAnswered: false });
    unanswered.cursor.moved(unanswered.at(0, 0));
    unanswered.typed(0, 1);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(unanswered.near).toEqual([]);
  });

  it("is forgotten when the text changes before it has rested, and when nobody listens any more", async () => {
    const { cursor, document, near, at, typed } = setUp();
    cursor.moved(at(0, 0));
    typed(0, 1);
    cursor.moved(at(4, 0));
    document.version += 1;
    await vi.advanceTimersByTimeAsync(1_000);
    typed(4, 1);
    cursor.moved(at(2, 0));
    cursor.dispose();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(near).toEqual(["0:1", "4:1"]);
  });
});
