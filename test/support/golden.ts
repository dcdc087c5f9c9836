/**
 * Golden texts: what a test expects, kept in a file that is reviewed like code. UPDATE_GOLDEN=1 rewrites them.
 */

import { mkdir, readFile, writeFile } from "node:fs/promises";
import * as path from "node:path";
import { expect } from "vitest";

export async function expectGolden(name: string, text: string): Promise<void> {
  const file = path.resolve("test/golden", name);
  if (process.env["UPDATE_GOLDEN"] === "1") {
    await mkdir(path.dirname(file), { recursive: true });
    await writeFile(file, text);
  }
  expect(text).toBe(await readFile(file, "utf8"));
}
