import { describe, expect, it } from "vitest";
import { ChangeLog, type FileChange } from "../../../../engine/contexts/changes";

const tokens = (...ids: number[]): Uint32Array => Uint32Array.from(ids);
const changed = (path: string, before: Uint32Array, after: Uint32Array): FileChange => ({
  path,
  before,
  after,
  kind: "changed",
});

describe("ChangeLog", () => {
  it("tells one change a file, from then to now", () => {
    const log = new ChangeLog();
    log.note([changed("a", tokens(1), tokens(2))]);
    const between = log.now;
    log.note([changed("a", tokens(2), tokens(3)), changed("b", tokens(7), tokens(8))]);
    expect(log.since(0)).toEqual([changed("a", tokens(1), tokens(3)), changed("b", tokens(7), tokens(8))]);
    expect(log.since(between)).toEqual([changed("a", tokens(2), tokens(3)), changed("b", tokens(7), tokens(8))]);
    expect(log.since(log.now)).toEqual([]);
  });

  it("says nothing of what was taken back, or came and went", () => {
    const log = new ChangeLog();
    log.note([changed("a", tokens(1), tokens(2)), { path: "b", before: undefined, after: tokens(5), kind: "added" }]);
    log.note([changed("a", tokens(2), tokens(1)), { path: "b", before: undefined, after: undefined, kind: "removed" }]);
    expect(log.since(0)).toEqual([]);
  });

  it("takes a file that went and came again for a changed one", () => {
    const log = new ChangeLog();
    log.note([{ path: "a", before: undefined, after: undefined, kind: "removed" }]);
    log.note([{ path: "a", before: undefined, after: tokens(5), kind: "added" }]);
    expect(log.since(0)).toEqual([{ path: "a", before: undefined, after: tokens(5), kind: "changed" }]);
  });

  it("forgets the oldest, and says that it did rather than tell half", () => {
    const log = new ChangeLog();
    for (let index = 0; index < 600; index++) log.note([changed(`f${index}`, tokens(1), tokens(2))]);
    expect(log.since(0)).toBeUndefined();
    expect(log.since(log.now - 10)).toHaveLength(10);
  });
});
