/**
 * NOSA adapters that came with this build: found by the hash of the model they were trained for.
 */

import { open, readdir } from "node:fs/promises";
import * as path from "node:path";
import * as z from "zod/mini";
import { codeOf } from "../errors";

/** The header of a safetensors file: its length, 8 bytes, then as much JSON. */
const lengthBytes = 8;
const headerBytesMax = 1 << 20;

const headerSchema = z.object({ __metadata__: z.object({ base_sha256: z.string() }) });

/** Path of the adapter for the model file with this SHA-256 (hex); undefined when there is none. */
export async function adapterFor(folder: string, modelSha256: string): Promise<string | undefined> {
  if (modelSha256 === "") return undefined;
  for (const name of await adapterNames(folder)) {
    const file = path.join(folder, name);
    if ((await baseOf(file)) === modelSha256) return file;
  }
  return undefined;
}

async function adapterNames(folder: string): Promise<readonly string[]> {
  try {
    return (await readdir(folder)).filter((name) => name.endsWith(".safetensors")).sort();
  } catch (error) {
    if (codeOf(error) === "ENOENT") return [];
    throw error;
  }
}

/** "" for a file that does not say. */
async function baseOf(file: string): Promise<string> {
  const handle = await open(file);
  try {
    const length = Buffer.alloc(lengthBytes);
    await handle.read(length, 0, lengthBytes, 0);
    const bytes = Number(length.readBigUInt64LE());
    if (bytes > headerBytesMax) return "";
    const header = Buffer.alloc(bytes);
    await handle.read(header, 0, bytes, lengthBytes);
    const parsed = headerSchema.safeParse(JSON.parse(header.toString("utf8")));
    return parsed.success ? parsed.data.__metadata__.base_sha256 : "";
  } catch {
    return "";
  } finally {
    await handle.close();
  }
}
