// Things to carry → batches that each fit through a narrow door: every batch is a folder with parts, and with what unpacks them (unpack.sh).
import { createHash } from "node:crypto";
import { closeSync, copyFileSync, mkdirSync, openSync, readSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const pieceBytes = 2 ** 22;
const carriers = ["unpack.sh", "shards.py"].map((name) => fileURLToPath(new URL(name, import.meta.url)));

/**
 * Writes `items` ([{file, place}]: a .tar.xz becomes the folder `place` of the work folder, any other file goes into it) as batches below `into`, none with
 * more than `bytesMax` in parts. A part is named by its checksum and is cut the same way whatever lies beside it: what has arrived once need not come
 * again. Gives `[{folder, bytes, holds: [name]}]`.
 */
export function writeBatches(items, { into, bytesMax }) {
  const cut = items.map((item) => ({ ...item, name: path.basename(item.file), ...cutUp(item.file, bytesMax) }));
  const table = cut.map(({ name, place, sha256, parts }) =>
    [name, place, sha256, ...parts.map((part) => part.sha256)].join(" "),
  );
  const batches = packed(
    cut.flatMap(({ name, file, parts }) => parts.map((part) => ({ ...part, name, file }))),
    bytesMax,
  );
  return batches.map((parts, at) => {
    const folder = path.join(into, `batch-${String(at + 1).padStart(2, "0")}`);
    mkdirSync(folder, { recursive: true });
    for (const carrier of carriers) copyFileSync(carrier, path.join(folder, path.basename(carrier)));
    writeFileSync(path.join(folder, "items.txt"), `${table.join("\n")}\n`);
    for (const { file, from, bytes, sha256 } of parts)
      copyRange(file, from, bytes, path.join(folder, `${sha256}.part`));
    return { folder, bytes: sum(parts), holds: [...new Set(parts.map(({ name }) => name))] };
  });
}

/** Whole parts into as few batches as there is an easy way to: each into the first that has room. */
export function packed(parts, bytesMax) {
  const batches = [];
  for (const part of parts) {
    const roomy = batches.find((batch) => sum(batch) + part.bytes <= bytesMax);
    if (roomy === undefined) batches.push([part]);
    else roomy.push(part);
  }
  return batches;
}

function sum(parts) {
  return parts.reduce((total, { bytes }) => total + bytes, 0);
}

/** `{sha256, parts: [{from, bytes, sha256}]}` */
function cutUp(file, bytesMax) {
  const total = statSync(file).size;
  const whole = createHash("sha256");
  const parts = [];
  for (let from = 0; from < total; from += bytesMax) {
    const bytes = Math.min(bytesMax, total - from);
    const own = createHash("sha256");
    eachPiece(file, from, bytes, (piece) => {
      whole.update(piece);
      own.update(piece);
    });
    parts.push({ from, bytes, sha256: own.digest("hex") });
  }
  return { sha256: whole.digest("hex"), parts };
}

function copyRange(file, from, bytes, target) {
  const output = openSync(target, "w");
  eachPiece(file, from, bytes, (piece) => writeFileSync(output, piece));
  closeSync(output);
}

function eachPiece(file, from, bytes, use) {
  const input = openSync(file, "r");
  const buffer = Buffer.alloc(Math.min(pieceBytes, bytes));
  for (let at = 0; at < bytes;) {
    const read = readSync(input, buffer, 0, Math.min(buffer.length, bytes - at), from + at);
    if (read === 0) throw new Error(`${file} became shorter while it was read.`);
    use(buffer.subarray(0, read));
    at += read;
  }
  closeSync(input);
}
