// Draws media/icons/icon.png: the blocks of a context, and the attended ones among them, which draw an N.
// Run it after changing the drawing: node scripts/make-icon.mjs

import { writeFileSync } from "node:fs";
import { deflateSync } from "node:zlib";

const size = 256;
/** Samples along each side of a pixel, for smooth edges. */
const samples = 4;

/** From the upper left; the same grid as in media/icons/activity.svg and in the chat view. */
const grid = ["N..N", "NN.N", "N.NN", "N..N"];
const margin = 44;
const pitch = (size - 2 * margin) / 4;
const block = pitch * 0.78;

const ground = { top: [22, 42, 56], bottom: [9, 18, 26] };
const lit = { top: [126, 231, 255], bottom: [64, 156, 255] };
const dim = [255, 255, 255, 0.11];

/** Signed distance from a point to a rounded square, negative inside. */
function squareDistance(x, y, centreX, centreY, side, radius) {
  const dx = Math.abs(x - centreX) - side / 2 + radius;
  const dy = Math.abs(y - centreY) - side / 2 + radius;
  return Math.hypot(Math.max(dx, 0), Math.max(dy, 0)) + Math.min(Math.max(dx, dy), 0) - radius;
}

const mix = (from, to, share) => from.map((value, index) => value + share * (to[index] - value));
const over = (below, above, alpha) => mix(below, above, alpha);

/** Red, green, blue and coverage of one point. */
function colourAt(x, y) {
  if (squareDistance(x, y, size / 2, size / 2, size, 56) > 0) return [0, 0, 0, 0];
  let colour = mix(ground.top, ground.bottom, y / size);
  for (const [row, cells] of grid.entries()) {
    for (const [column, cell] of [...cells].entries()) {
      const centreX = margin + (column + 0.5) * pitch;
      const centreY = margin + (row + 0.5) * pitch;
      const distance = squareDistance(x, y, centreX, centreY, block, 9);
      const isLit = cell === "N";
      if (isLit && distance > 0) colour = over(colour, lit.bottom, 0.2 * Math.exp(-distance / 9));
      if (distance > 0) continue;
      colour = isLit ? mix(lit.top, lit.bottom, y / size) : over(colour, dim.slice(0, 3), dim[3]);
    }
  }
  return [...colour, 1];
}

function pixel(x, y) {
  const sum = [0, 0, 0, 0];
  for (let i = 0; i < samples * samples; i += 1) {
    const at = colourAt(x + ((i % samples) + 0.5) / samples, y + (Math.floor(i / samples) + 0.5) / samples);
    for (let channel = 0; channel < 3; channel += 1) sum[channel] += at[channel] * at[3];
    sum[3] += at[3];
  }
  const covered = sum[3] === 0 ? 1 : sum[3];
  return [sum[0] / covered, sum[1] / covered, sum[2] / covered, (255 * sum[3]) / samples ** 2].map(Math.round);
}

const crcTable = Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? 0xedb88320 ^ (crc >>> 1) : crc >>> 1;
  return crc >>> 0;
});

function chunk(type, body) {
  const named = Buffer.concat([Buffer.from(type, "latin1"), body]);
  let crc = 0xffffffff;
  for (const byte of named) crc = crcTable[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  const framed = Buffer.alloc(named.length + 8);
  framed.writeUInt32BE(body.length, 0);
  named.copy(framed, 4);
  framed.writeUInt32BE((crc ^ 0xffffffff) >>> 0, named.length + 4);
  return framed;
}

// PNG: each row starts with its filter, here 0 for none; colour type 6 is RGBA.
const rows = Buffer.alloc(size * (1 + 4 * size));
for (let y = 0; y < size; y += 1) {
  for (let x = 0; x < size; x += 1) rows.set(pixel(x, y), y * (1 + 4 * size) + 1 + 4 * x);
}
const header = Buffer.alloc(13);
header.writeUInt32BE(size, 0);
header.writeUInt32BE(size, 4);
header.set([8, 6, 0, 0, 0], 8);
const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
const parts = [
  signature,
  chunk("IHDR", header),
  chunk("IDAT", deflateSync(rows, { level: 9 })),
  chunk("IEND", Buffer.alloc(0)),
];
writeFileSync(new URL("../media/icons/icon.png", import.meta.url), Buffer.concat(parts));
