import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { commitDiff, cutAtLine, latestSubjects, workingDiff } from "../../../../extension/asking/workingDiff";

let folder: string;
const git = (...args: readonly string[]): string => execFileSync("git", args, { cwd: folder, encoding: "utf8" });

beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), "nosa-diff-"));
  git("init", "--quiet");
  writeFileSync(path.join(folder, "ä b.ts"), "one\ntwo\n");
  git("add", ".");
  git("-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "--quiet", "-m", "Begin");
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe("the working diff", () => {
  it("is empty when nothing changed", async () => {
    expect(await workingDiff(folder)).toEqual({ text: "", paths: [], isCut: false });
  });

  it("holds staged and unstaged changes, and names their files", async () => {
    writeFileSync(path.join(folder, "ä b.ts"), "one\nthree\n");
    writeFileSync(path.join(folder, "new.ts"), "new\n");
    git("add", "new.ts");
    const diff = await workingDiff(folder);
    expect(diff.paths.toSorted()).toEqual(["new.ts", "ä b.ts"]);
    expect(diff.text).toContain("-two\n+three");
    expect(diff.text).toContain("+new");
  });

  it("of a commit holds what is staged, else what changed and the names of new files", async () => {
    expect((await commitDiff(folder)).text).toBe("");
    writeFileSync(path.join(folder, "ä b.ts"), "one\nthree\n");
    writeFileSync(path.join(folder, "new.ts"), "new\n");
    const { text, paths } = await commitDiff(folder);
    expect(text).toMatch(/\+three\n+New file: new\.ts$/);
    expect(paths).toEqual(["ä b.ts"]);
    git("add", "new.ts");
    const staged = await commitDiff(folder);
    expect([staged.paths, staged.text.includes("+three")]).toEqual([["new.ts"], false]);
    expect(await latestSubjects(folder, 5)).toEqual(["Begin"]);
  });

  it("runs no program that the repository's configuration names", async () => {
    const trap = path.join(folder, "trap.sh");
    writeFileSync(trap, `#!/bin/sh\ntouch "${folder}/sprung"\n`, { mode: 0o755 });
    git("config", "core.fsmonitor", trap);
    git("config", "diff.external", trap);
    writeFileSync(path.join(folder, "ä b.ts"), "one\nthree\n");
    await workingDiff(folder);
    expect(() => execFileSync("ls", [path.join(folder, "sprung")], { stdio: "ignore" })).toThrow();
  });

  it("says what git says where there is no repository", async () => {
    rmSync(path.join(folder, ".git"), { recursive: true, force: true });
    await expect(workingDiff(folder)).rejects.toThrow(/not a git repository/i);
  });

  it("is cut at a line", () => {
    const lines = Array.from({ length: 50 }, (_, index) => `+line ${index}`).join("\n");
    const cut = cutAtLine(lines, 100);
    expect(cut.isCut).toBe(true);
    expect(cut.text.length).toBeLessThanOrEqual(102);
    expect(lines.startsWith(cut.text.replace(/\n…$/, ""))).toBe(true);
    expect(cutAtLine("short\n", 100)).toEqual({ text: "short", isCut: false });
  });
});
