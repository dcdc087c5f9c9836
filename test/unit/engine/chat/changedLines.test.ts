import { describe, expect, it } from "vitest";
import { changedLines } from "../../../../engine/chat/changedLines";
import { random, testSeed } from "../../../support/random";

/** Bytes as tokens. */
const newlines = new Uint8Array(256);
newlines[10] = 1;
const lines = { newlines, endsLine: newlines };
const encode = (text: string): Uint32Array => Uint32Array.from(Buffer.from(text));
const decode = (tokens: Uint32Array): string => Buffer.from(tokens).toString();

function apply(before: string, after: string): string {
  const { oldStart, oldEnd, tokens } = changedLines(encode(before), encode(after), lines);
  const kept = before.split("\n").slice(0, -1);
  return [
    ...kept.slice(0, oldStart - 1).map((line) => `${line}\n`),
    decode(tokens),
    ...kept.slice(oldEnd).map((line) => `${line}\n`),
  ].join("");
}

describe("changedLines", () => {
  it("finds the lines of one edit, whole", () => {
    const before = "one\ntwo\nthree\nfour\n";
    expect(changedLines(encode(before), encode("one\ntwo!\nthree\nfour\n"), lines)).toMatchObject({
      oldStart: 2,
      oldEnd: 2,
      newStart: 2,
      newEnd: 2,
    });
    const removed = changedLines(encode(before), encode("one\nfour\n"), lines);
    expect([removed.oldStart, removed.oldEnd, removed.tokens.length]).toEqual([2, 3, 0]);
    const added = changedLines(encode(before), encode("one\nnew\ntwo\nthree\nfour\n"), lines);
    expect([added.oldStart, added.oldEnd, decode(added.tokens)]).toEqual([2, 1, "new\n"]);
  });

  it("makes the later state out of the earlier one, whatever the edit", () => {
    const { between, pick } = random(testSeed());
    const line = (): string => `${pick(["a", "b"]).repeat(between(0, 2))}\n`;
    const text = (): string => Array.from({ length: between(0, 8) }, line).join("");
    for (let round = 0; round < 500; round++) {
      const [before, after] = [text(), text()];
      expect(apply(before, after)).toBe(after);
    }
  });
});
