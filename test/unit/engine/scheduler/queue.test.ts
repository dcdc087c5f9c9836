import { describe, expect, it } from "vitest";
import { nextIndex, outranks, type JobKind, type Waiting } from "../../../../engine/scheduler/queue";

const waiting = (kind: JobKind, servedAt: number, arrivedAt: number): Waiting => ({ kind, servedAt, arrivedAt });

describe("nextIndex", () => {
  it("finds nothing among nothing", () => {
    expect(nextIndex([])).toBe(-1);
  });

  it("serves completions before chat before indexing, however late they came", () => {
    const items = [waiting("indexing", 0, 1), waiting("chat", 0, 2), waiting("completion", 9, 3)];
    expect(nextIndex(items)).toBe(2);
    expect(nextIndex(items.slice(0, 2))).toBe(1);
  });

  it("serves what nobody waits for yet before indexing, and behind everything that somebody does", () => {
    const items = [waiting("indexing", 0, 1), waiting("ahead", 9, 3), waiting("chat", 9, 2)];
    expect(nextIndex(items)).toBe(2);
    expect(nextIndex(items.slice(0, 2))).toBe(1);
    expect([outranks("chat", "ahead"), outranks("ahead", "indexing")]).toEqual([true, true]);
  });

  it("lets equals take turns: the job that was served longest ago goes first", () => {
    expect(nextIndex([waiting("chat", 7, 1), waiting("chat", 3, 2)])).toBe(1);
  });

  it("serves jobs that were never served in the order of arrival", () => {
    expect(nextIndex([waiting("chat", 0, 5), waiting("chat", 0, 4)])).toBe(1);
  });
});

describe("outranks", () => {
  it("is true for a more urgent kind only", () => {
    expect(outranks("completion", "chat")).toBe(true);
    expect(outranks("chat", "indexing")).toBe(true);
    expect(outranks("chat", "chat")).toBe(false);
    expect(outranks("indexing", "completion")).toBe(false);
  });
});
