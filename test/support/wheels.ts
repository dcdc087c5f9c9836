/**
 * Python wheels, and a pip that brings them from a folder.
 */

import { mkdir, writeFile } from "node:fs/promises";
import * as path from "node:path";
import { crc32, deflateRawSync } from "node:zlib";

export interface WheelMember {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly stored?: boolean;
}

/** A zip file with the members in order. */
export function wheelBytes(members: readonly WheelMember[]): Buffer {
  const locals: Buffer[] = [];
  const directory: Buffer[] = [];
  let at = 0;
  for (const { name, bytes, stored } of members) {
    const packed = stored === true ? Buffer.from(bytes) : deflateRawSync(bytes);
    const nameBytes = Buffer.from(name);
    const common = Buffer.alloc(26);
    common.writeUInt16LE(20, 0);
    common.writeUInt16LE(stored === true ? 0 : 8, 4);
    common.writeUInt32LE(crc32(bytes), 10);
    common.writeUInt32LE(packed.length, 14);
    common.writeUInt32LE(bytes.length, 18);
    common.writeUInt16LE(nameBytes.length, 22);
    const local = Buffer.concat([Buffer.from([0x50, 0x4b, 3, 4]), common, nameBytes, packed]);
    const entry = Buffer.alloc(46);
    entry.writeUInt32LE(0x02014b50, 0);
    common.copy(entry, 6);
    entry.writeUInt32LE(at, 42);
    directory.push(entry, nameBytes);
    locals.push(local);
    at += local.length;
  }
  const entries = Buffer.concat(directory);
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(members.length, 8);
  end.writeUInt16LE(members.length, 10);
  end.writeUInt32LE(entries.length, 12);
  end.writeUInt32LE(at, 16);
  return Buffer.concat([...locals, entries, end]);
}

export interface FakePip {
  readonly command: readonly string[];
  /** Puts a wheel into the registry, in place of an older one. */
  publish(name: string, version: string, wheel: Uint8Array): Promise<void>;
}

/** A program that understands `download --dest=D NAME==VERSION`, fails for unknown packages, and notes each call in `calls.txt`. */
export async function fakePip(folder: string): Promise<FakePip> {
  const program = path.join(folder, "pip.cjs");
  const registry = path.join(folder, "registry");
  await mkdir(registry, { recursive: true });
  await writeFile(
    program,
    `const fs = require("node:fs"), path = require("node:path");
     const args = process.argv.slice(2);
     const [name, version] = args.at(-1).split("==");
     const dest = args.find((arg) => arg.startsWith("--dest=")).slice(7);
     fs.appendFileSync(path.join(__dirname, "calls.txt"), args.at(-1) + "\\n");
     const file = name.replaceAll("-", "_") + "-" + version + "-py3-none-any.whl";
     const from = path.join(__dirname, "registry", file);
     if (args[0] !== "download" || !args.includes("--no-deps") || !fs.existsSync(from)) {
       console.error("ERROR: No matching distribution found for " + args.at(-1));
       process.exit(1);
     }
     fs.copyFileSync(from, path.join(dest, file));`,
  );
  return {
    command: [process.execPath, program],
    publish: (name, version, wheel) =>
      writeFile(path.join(registry, `${name.replaceAll("-", "_")}-${version}-py3-none-any.whl`), wheel),
  };
}
