import { expect, it } from "vitest";
import { textStream } from "../../../../engine/tokenizer/textStream";
import { randomUnicode } from "../../../support/corpus";
import { random, testSeed } from "../../../support/random";

it("gives the same text however its bytes are spread over tokens, and never half a character", () => {
  const draw = random(testSeed());
  for (let round = 0; round < 50; round++) {
    const text = `\ufeff${randomUnicode(draw, 200)}`;
    const bytes = new TextEncoder().encode(text);
    const tokens: Uint8Array[] = [];
    for (let at = 0; at < bytes.length;) {
      const length = draw.between(0, 5);
      tokens.push(bytes.subarray(at, at + length));
      at += length;
    }
    const stream = textStream((id) => tokens[id] ?? new Uint8Array());
    let got = "";
    for (let id = 0; id < tokens.length; id++) {
      const piece = stream.push(id);
      expect(piece.includes("\ufffd") && !text.includes("\ufffd")).toBe(false);
      got += piece;
    }
    expect(got + stream.end()).toBe(text);
  }
});

it("owns up to a character that never became complete", () => {
  const stream = textStream(() => Uint8Array.of(0xe2, 0x82));
  expect(stream.push(0)).toBe("");
  expect(stream.end()).toBe("\ufffd");
});
