// Makes a longer state of llama.cpp's cache out of a shorter one: the same keys and values again and again, at positions of their own.
//
// What dense attention costs depends on how many keys there are and not on what they hold, so that times over such a cache are those over a real one. It
// saves the quarter of an hour and more that a real prompt of 32 k tokens takes on two cores. Answers over it mean nothing.
import { readFileSync, writeFileSync } from "node:fs";

const magic = 0x67677371;
const version = 3;

/** Reads the state of one sequence in `from` and writes `times` as long a one to `to`. Throws for a file of another layout. */
export function repeatState(from, to, times) {
  const bytes = readFileSync(from);
  let at = 0;
  const u32 = () => {
    at += 4;
    return bytes.readUInt32LE(at - 4);
  };
  const expect = (holds) => {
    if (!holds) throw new Error(`${from} is not laid out as this version of llama.cpp is known to write it.`);
  };
  expect(u32() === magic && u32() === version);
  const tokens = u32();
  const prompt = bytes.subarray(at, at + 4 * tokens);
  at += 4 * tokens;
  // One stream, every cell with one sequence: its position, the number of sequences, their ids.
  expect(u32() === 1 && u32() === tokens);
  const cells = Buffer.alloc(12 * tokens * times);
  for (let cell = 0; cell < tokens; cell += 1) expect(u32() === cell && u32() === 1 && u32() === 0);
  for (let cell = 0; cell < tokens * times; cell += 1) {
    cells.writeUInt32LE(cell, 12 * cell);
    cells.writeUInt32LE(1, 12 * cell + 4);
  }
  const [transposed, layers] = [u32(), u32()];
  expect(transposed === 0);
  const parts = [
    head(magic, version, tokens * times),
    ...again(prompt, times),
    head(1, tokens * times),
    cells,
    head(0, layers),
  ];
  // All keys layer by layer, then all values: type, bytes of a row, rows.
  for (let tensor = 0; tensor < 2 * layers; tensor += 1) {
    const rowBytes = Number(bytes.readBigUInt64LE(at + 4));
    parts.push(bytes.subarray(at, at + 12), ...again(bytes.subarray(at + 12, at + 12 + rowBytes * tokens), times));
    at += 12 + rowBytes * tokens;
  }
  expect(at === bytes.length);
  writeFileSync(to, Buffer.concat(parts));
}

function head(...numbers) {
  return Buffer.from(Uint32Array.from(numbers).buffer);
}

function again(part, times) {
  return Array.from({ length: times }, () => part);
}
