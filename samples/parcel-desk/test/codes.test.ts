import assert from "node:assert/strict";
import test from "node:test";
import { isWellFormed, makeCode, normalizeCode } from "../src/codes.js";

test("a drawn code is well formed", () => {
  for (let round = 0; round < 1_000; round += 1) assert.ok(isWellFormed(makeCode(Math.random, () => false)));
});

test("one wrong character is always noticed", () => {
  const code = makeCode(() => 0.37, () => false);
  for (const other of "234679ACDEFGHJKMNPQRTVWXYZ") {
    if (other !== code[2]) assert.ok(!isWellFormed(`${code.slice(0, 2)}${other}${code.slice(3)}`));
  }
});

test("people may type blanks, dashes and small letters", () => {
  assert.equal(normalizeCode(" ab2-cd 3"), "AB2CD3");
});

test("a code in use is not drawn again", () => {
  const draws = [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9];
  const first = makeCode(() => 0.1, () => false);
  const second = makeCode(() => draws.shift() ?? 0, (code) => code === first);
  assert.notEqual(second, first);
});
