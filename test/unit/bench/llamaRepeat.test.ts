import * as fs from "node:fs";
import * as path from "node:path";
import { describe, expect, it } from "vitest";
import { repeatState } from "../../../bench/lib/llamaRepeat.mjs";
import { tempFolders } from "../../support/tempFolder";

const tempFolder = tempFolders();

const u32 = (...numbers: readonly number[]): Buffer => Buffer.from(Uint32Array.from(numbers).buffer);

/** A state of one sequence as llama.cpp writes it: `rows` of each layer's keys, then of its values. */
function state(prompt: readonly number[], keys: readonly Buffer[], values: readonly Buffer[]): Buffer {
  const cells = prompt.flatMap((_, position) => [position, 1, 0]);
  const tensor = (rows: Buffer): Buffer => {
    const head = Buffer.alloc(12);
    head.writeInt32LE(1, 0);
    head.writeBigUInt64LE(BigInt(rows.length / prompt.length), 4);
    return Buffer.concat([head, rows]);
  };
  const start = u32(0x67677371, 3, prompt.length, ...prompt, 1, prompt.length, ...cells, 0, keys.length);
  return Buffer.concat([start, ...keys.map(tensor), ...values.map(tensor)]);
}

describe("repeatState", () => {
  it("writes what a state of as many tokens would be", async () => {
    const folder = await tempFolder();
    const [from, to] = [path.join(folder, "short"), path.join(folder, "long")];
    const rows = (first: number): Buffer => Buffer.from(Array.from({ length: 6 }, (_, at) => first + at));
    fs.writeFileSync(from, state([7, 8, 9], [rows(0), rows(10)], [rows(20), rows(30)]));
    repeatState(from, to, 2);
    const twice = (first: number): Buffer => Buffer.concat([rows(first), rows(first)]);
    const expected = state([7, 8, 9, 7, 8, 9], [twice(0), twice(10)], [twice(20), twice(30)]);
    expect(fs.readFileSync(to)).toEqual(expected);
  });

  it("refuses a file of another layout", async () => {
    const file = path.join(await tempFolder(), "other");
    const whole = state([1, 2], [Buffer.alloc(4)], [Buffer.alloc(4)]);
    for (const broken of [whole.subarray(4), Buffer.concat([whole, Buffer.alloc(4)])]) {
      fs.writeFileSync(file, broken);
      expect(() => repeatState(file, `${file}.long`, 2)).toThrowError(/not laid out/);
    }
  });
});
