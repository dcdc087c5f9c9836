import { randomBytes } from "node:crypto";
import { writeFile } from "node:fs/promises";
import * as path from "node:path";
import { expect, it } from "vitest";
import { wheelMember } from "../../../../engine/models/wheel";
import { tempFolders } from "../../../support/tempFolder";
import { wheelBytes } from "../../../support/wheels";

const temp = tempFolders();

async function wheelFile(bytes: Uint8Array): Promise<string> {
  const file = path.join(await temp(), "some.whl");
  await writeFile(file, bytes);
  return file;
}

async function read(file: string, member: string): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of await wheelMember(file, member)) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

it.each([true, false])("gives a member's bytes, stored or not (%s), between others", async (stored) => {
  const bytes = randomBytes(300_000);
  const file = await wheelFile(
    wheelBytes([
      { name: "a/__init__.py", bytes: Buffer.from("x = 1\n") },
      { name: "a/data.bin", bytes, stored },
      { name: "a.dist-info/RECORD", bytes: Buffer.from("") },
    ]),
  );
  expect((await read(file, "a/data.bin")).equals(bytes)).toBe(true);
});

it("refuses what is no wheel, what is cut short and what lacks the member", async () => {
  const whole = wheelBytes([{ name: "a", bytes: randomBytes(5_000) }]);
  await expect(read(await wheelFile(randomBytes(4_000)), "a")).rejects.toThrow("no zip file");
  await expect(read(await wheelFile(Buffer.alloc(0)), "a")).rejects.toThrow("no zip file");
  await expect(read(await wheelFile(whole.subarray(0, 3_000)), "a")).rejects.toThrow("no zip file");
  await expect(read(await wheelFile(whole), "b")).rejects.toThrow("it holds no b");
});

it("fails, and does not hang, on damaged compressed bytes", async () => {
  const whole = wheelBytes([{ name: "a", bytes: Buffer.alloc(100_000, "abc") }]);
  whole.fill(0xff, 31, 60);
  await expect(read(await wheelFile(whole), "a")).rejects.toThrow();
});
