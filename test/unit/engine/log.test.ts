import * as fs from "node:fs";
import * as path from "node:path";
import { describe, expect, it } from "vitest";
import { FileLog } from "../../../engine/log";
import { temporaryFolder } from "../../support/folders";

describe("FileLog", () => {
  it("writes a line an event, with the error's own words, to its owner only", () => {
    const log = FileLog.open(path.join(temporaryFolder(), "logs"));
    log.info("hello");
    log.error("it broke", new Error("because"));
    const text = fs.readFileSync(log.path, "utf8");
    expect(text).toMatch(/ info hello\n/);
    expect(text).toMatch(/ error it broke: Error: because/);
    expect(fs.statSync(log.path).mode & 0o077).toBe(0);
    log.dispose();
  });

  it("never takes more room than two files of its maximum", () => {
    const folder = temporaryFolder();
    const log = FileLog.open(folder);
    for (let line = 0; line < 60; line++) log.info("x".repeat(200_000));
    log.dispose();
    const sizes = fs.readdirSync(folder).map((name) => fs.statSync(path.join(folder, name)).size);
    expect(sizes).toHaveLength(2);
    expect(sizes.reduce((total, size) => total + size, 0)).toBeLessThan(5 * 1024 * 1024);
    expect(FileLog.open(folder).path).toBe(log.path);
  });
});
