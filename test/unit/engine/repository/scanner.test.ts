import { execFileSync } from "node:child_process";
import { chmod, mkdir, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { cpus, loadavg } from "node:os";
import * as path from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { Cancelled } from "../../../../engine/errors";
import {
  fileBytesCeiling,
  readFileText,
  scan,
  type ScanOptions,
  type ScanResult,
} from "../../../../engine/repository/scanner";
import { tempFolders } from "../../../support/tempFolder";

const temp = tempFolders();
let root: string;

beforeEach(async () => {
  root = await temp();
});

async function put(file: string, content: string | Uint8Array = "content\n"): Promise<void> {
  const at = path.join(root, file);
  await mkdir(path.dirname(at), { recursive: true });
  await writeFile(at, content);
}

function git(...args: readonly string[]): string {
  return execFileSync("git", ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main", ...args], {
    cwd: root,
    encoding: "utf8",
  });
}

function scanned(options: Partial<ScanOptions> = {}, signal = new AbortController().signal): Promise<ScanResult> {
  return scan(root, { exclude: [], editorExcludes: {}, fileBytesMax: 512 * 1024, ...options }, signal);
}

const paths = (result: ScanResult): readonly string[] => result.files.map((file) => file.path);
const reasons = (result: ScanResult): Readonly<Record<string, string>> =>
  Object.fromEntries(result.leftOut.map((file) => [file.path, file.reason]));

/** Every case is true of a folder that git knows and of one that it does not. */
describe.each(["git", "none"])("a folder with version control: %s", (vcs) => {
  const commit = (): void => {
    if (vcs !== "git") return;
    git("init", "-q");
    git("add", "-A");
    git("commit", "-qm", "all", "--allow-empty");
  };

  it("lists files by path, with sizes, and names the folder", async () => {
    await put("b/z.ts", "12345");
    await put("b/a.ts");
    await put("a.ts");
    await put("é ü.md");
    commit();
    await put("untracked.ts");
    const result = await scanned();
    expect(paths(result)).toEqual(["a.ts", "b/a.ts", "b/z.ts", "untracked.ts", "é ü.md"]);
    expect(result.files[2]?.bytes).toBe(5);
    expect(result.files[2]?.mtimeMs).toBeGreaterThan(0);
    expect([result.vcs, result.name]).toEqual([vcs, path.basename(root)]);
  });

  it("obeys ignore files, nested and with exceptions, and our own beside git's", async () => {
    await put(".gitignore", "*.log\nbuild/\n!keep.log\n");
    await put("sub/.gitignore", "!special.log\nlocal.txt\n");
    await put(".nosaignore", "private/\n");
    await put("deep/.nosaignore", "*.md\n!keep.md\n");
    for (const file of [
      "x.log",
      "keep.log",
      "build/out.ts",
      "sub/special.log",
      "sub/local.txt",
      "private/a.ts",
      "deep/x.md",
      "deep/keep.md",
      "in.ts",
    ]) {
      await put(file);
    }
    commit();
    const result = await scanned();
    expect(paths(result).filter((file) => !file.endsWith("ignore"))).toEqual([
      "deep/keep.md",
      "in.ts",
      "keep.log",
      "sub/special.log",
    ]);
    const left = reasons(result);
    for (const file of ["build/", "x.log", "sub/local.txt", "deep/x.md"]) expect(left[file]).toBe("ignored");
    expect(left["private/"] ?? left["private/a.ts"]).toBe("ignored");
  });

  it("obeys the user's globs and the editor's, and survives globs that are none", async () => {
    for (const file of ["a.ts", "a.snap", "x/b.snap", "out/c.ts", "x/out/d.ts", "docs/e.md", "lib/f.ts"])
      await put(file);
    commit();
    const result = await scanned({
      exclude: ["*.snap", "/docs/", "[", "", "!("],
      editorExcludes: { "**/out": true, lib: true, "**/*.ts": false },
    });
    expect(paths(result)).toEqual(["a.ts"]);
    const left = reasons(result);
    for (const file of ["a.snap", "x/b.snap"]) expect(left[file]).toBe("excluded");
    expect(left["lib/"] ?? left["lib/f.ts"]).toBe("excluded");
  });

  it("leaves out secrets, generated and binary files by name, and what is too large", async () => {
    const left = {
      ".env": "secret",
      ".env.production": "secret",
      "deploy/server.PEM": "secret",
      ".aws/config": "secret",
      id_rsa: "secret",
      "passwords.kdbx": "secret",
      "config/credentials.json": "secret",
      "package-lock.json": "generated",
      "dist.min.js": "generated",
      "logo.png": "binary",
    };
    for (const file of [...Object.keys(left), ".env.example", "id_rsa.pub", "keys.ts", "secret.ts"]) await put(file);
    await put("large.txt");
    await truncate(path.join(root, "large.txt"), 50_000_000);
    commit();
    const result = await scanned();
    expect(reasons(result)).toMatchObject({ ...left, "large.txt": "tooLarge" });
    expect(paths(result)).toEqual([".env.example", "id_rsa.pub", "keys.ts", "secret.ts"]);
  });

  it("leaves links out, also those that lead in a circle", async () => {
    await put("real/a.ts");
    await symlink("..", path.join(root, "real/up"));
    await symlink("loop", path.join(root, "loop"));
    await symlink("real/a.ts", path.join(root, "alias.ts"));
    commit();
    const result = await scanned();
    expect(paths(result)).toEqual(["real/a.ts"]);
    expect(reasons(result)).toMatchObject({ "real/up": "link", loop: "link", "alias.ts": "link" });
  });

  it("goes on beside a folder that it may not read", async () => {
    await put("a.ts");
    await put("locked/b.ts");
    if (vcs === "git") {
      git("init", "-q");
      git("add", "a.ts");
    }
    await chmod(root, 0o755);
    await chmod(path.join(root, "locked"), 0o000);
    const result = await asNobody(() => scanned());
    await chmod(path.join(root, "locked"), 0o755);
    expect(paths(result)).toEqual(["a.ts"]);
    expect(reasons(result)).toMatchObject({ "locked/": "unreadable" });
  });

  it("gives an empty list for a folder with nothing to read", async () => {
    commit();
    expect((await scanned()).files).toEqual([]);
  });

  it("lists 20,000 files and holds up the event loop for 20 ms at most", async () => {
    await makeMany(20_000);
    commit();
    await scanned();
    // What the work itself holds up it holds up every time; a pause for the collector or another program comes and goes.
    const pauses = [await longestPause(), await longestPause(), await longestPause()];
    console.log(`${vcs}: longest pauses ${pauses.map((ms) => ms.toFixed(1)).join(", ")} ms`);
    // A busy machine takes the processor away for longer than the work itself holds it: 20 ms are asked for where it is quiet.
    expect(Math.min(...pauses)).toBeLessThan((loadavg()[0] ?? 0) > cpus().length ? 250 : 20);
  });

  async function longestPause(): Promise<number> {
    let worst = 0;
    let last = performance.now();
    const ticker = setInterval(() => {
      const now = performance.now();
      worst = Math.max(worst, now - last);
      last = now;
    }, 1);
    const result = await scanned();
    clearInterval(ticker);
    expect(result.files).toHaveLength(20_000);
    return worst;
  }

  it("stops when cancelled, before and during", async () => {
    await makeMany(2_000);
    commit();
    const before = new AbortController();
    before.abort();
    await expect(scanned({}, before.signal)).rejects.toBeInstanceOf(Cancelled);
    const during = new AbortController();
    await expect(scanned({ onProgress: () => during.abort() }, during.signal)).rejects.toBeInstanceOf(Cancelled);
  });
});

describe("what git adds", () => {
  it("gives blob ids of unchanged files alone", async () => {
    await put("same.ts", "same\n");
    await put("edited.ts", "before\n");
    await put("gone.ts");
    git("init", "-q");
    git("add", "-A");
    git("commit", "-qm", "all");
    await put("edited.ts", "after, and longer\n");
    await put("new.ts");
    await rm(path.join(root, "gone.ts"));
    const result = await scanned();
    expect(paths(result)).toEqual(["edited.ts", "new.ts", "same.ts"]);
    expect(result.files.map(({ blob }) => blob)).toEqual(["", "", git("hash-object", "same.ts").trim()]);
  });

  it("enters repositories inside the repository", async () => {
    await put("inner/x.ts");
    execFileSync("git", ["init", "-q"], { cwd: path.join(root, "inner") });
    await put("a.ts");
    git("init", "-q");
    git("add", "a.ts");
    expect(paths(await scanned())).toEqual(["a.ts", "inner/x.ts"]);
  });

  it("lists a folder of the repository from that folder's view", async () => {
    await put("pkg/a.ts");
    await put("other/b.ts");
    git("init", "-q");
    git("add", "-A");
    const result = await scan(
      path.join(root, "pkg"),
      { exclude: [], editorExcludes: {}, fileBytesMax: 1_000 },
      new AbortController().signal,
    );
    expect([paths(result), result.vcs, result.name]).toEqual([["a.ts"], "git", "pkg"]);
  });

  it("walks a folder that the repository around it ignores", async () => {
    await put("tmp/a.ts");
    await put(".gitignore", "tmp/\n");
    git("init", "-q");
    git("add", "-A");
    const result = await scan(
      path.join(root, "tmp"),
      { exclude: [], editorExcludes: {}, fileBytesMax: 1_000 },
      new AbortController().signal,
    );
    expect([paths(result), result.vcs]).toEqual([["a.ts"], "none"]);
  });

  it("does not run programs that a repository's configuration names", async () => {
    await put("a.ts");
    git("init", "-q");
    git("add", "-A");
    git("config", "core.fsmonitor", `touch ${path.join(root, "ran.txt")}; false`);
    expect(paths(await scanned())).toEqual(["a.ts"]);
  });
});

it("says what is wrong with a folder that is not there", async () => {
  await expect(
    scan(
      path.join(root, "nowhere"),
      { exclude: [], editorExcludes: {}, fileBytesMax: 1 },
      new AbortController().signal,
    ),
  ).rejects.toMatchObject({
    kind: "rootMissing",
    message: expect.stringContaining("cannot be opened"),
  });
  await put("file");
  await expect(
    scan(path.join(root, "file"), { exclude: [], editorExcludes: {}, fileBytesMax: 1 }, new AbortController().signal),
  ).rejects.toMatchObject({
    kind: "rootMissing",
  });
});

describe("reading a file", () => {
  const read = (file: string, bytesMax = 512 * 1024) => readFileText(root, file, bytesMax);

  it("decodes UTF-8 and UTF-16 without marks, and replaces what few bytes are wrong", async () => {
    await put("plain.ts", "é\r\n");
    await put("mark.ts", "\ufeffx\n");
    await put("wide.ts", Buffer.concat([Buffer.from([0xff, 0xfe]), Buffer.from("wide é\n", "utf16le")]));
    await put(
      "latin.ts",
      Buffer.concat([Buffer.from("// caf"), Buffer.from([0xe9]), Buffer.from(`\n${"x = 1;\n".repeat(50)}`)]),
    );
    expect(await read("plain.ts")).toEqual({
      kind: "text",
      text: "é\r\n",
      hash: expect.stringMatching(/^[0-9a-f]{64}$/) as string,
    });
    expect(await read("mark.ts")).toMatchObject({ text: "x\n" });
    expect(await read("wide.ts")).toMatchObject({ text: "wide é\n" });
    expect(await read("latin.ts")).toMatchObject({ text: expect.stringContaining("caf\ufffd\n") as string });
  });

  it("leaves out bytes, keys, generated and minified text, and what is too large, linked or gone", async () => {
    await put(
      "bytes",
      Uint8Array.from({ length: 4_000 }, (_, at) => (at * 37) % 256 || 1),
    );
    await put("nul", "text\0text");
    await put(
      "deploy.txt",
      `-----BEGIN OPENSSH PRIVATE KEY-----\n${"b3BlbnNzaC1rZXktdjEAAAAABG5vbmU".repeat(3)}\n-----END OPENSSH PRIVATE KEY-----\n`,
    );
    await put("talk.ts", 'const head = "-----BEGIN PRIVATE KEY-----";\n// -----BEGIN PRIVATE KEY----- opens a key\n');
    await put("gen.go", "// Code generated by protoc-gen-go. DO NOT EDIT.\npackage x\n");
    await put("mini.js", `var a=1;${"function b(){return a};".repeat(2_000)}`);
    await put("big.txt", "x\n".repeat(2_000));
    await symlink("talk.ts", path.join(root, "link.ts"));
    expect(await read("bytes")).toEqual({ kind: "leftOut", reason: "binary" });
    expect(await read("nul")).toEqual({ kind: "leftOut", reason: "binary" });
    expect(await read("deploy.txt")).toEqual({ kind: "leftOut", reason: "secret" });
    expect(await read("talk.ts")).toMatchObject({ kind: "text" });
    expect(await read("gen.go")).toEqual({ kind: "leftOut", reason: "generated" });
    expect(await read("mini.js")).toEqual({ kind: "leftOut", reason: "generated" });
    expect(await read("big.txt", 100)).toEqual({ kind: "leftOut", reason: "tooLarge" });
    expect(await read("link.ts")).toEqual({ kind: "leftOut", reason: "link" });
    expect(await read("gone.ts")).toEqual({ kind: "leftOut", reason: "unreadable" });
    expect(await read("")).toEqual({ kind: "leftOut", reason: "unreadable" });
  });

  it("reads an empty file as empty text", async () => {
    await put("__init__.py", "");
    expect(await read("__init__.py")).toMatchObject({ kind: "text", text: "" });
  });

  it("lets no setting in what would hold up the event loop", async () => {
    await put("huge.txt", "");
    await truncate(path.join(root, "huge.txt"), fileBytesCeiling + 1);
    expect(await read("huge.txt", 2 ** 40)).toEqual({ kind: "leftOut", reason: "tooLarge" });
  });

  it("waits for nobody who might write into a pipe", async () => {
    execFileSync("mkfifo", [path.join(root, "pipe.ts")]);
    expect(await read("pipe.ts")).toEqual({ kind: "leftOut", reason: "unreadable" });
    expect(paths(await scanned())).toEqual([]);
  });
});

/** Root may read everything; nobody may not. */
async function asNobody<T>(work: () => Promise<T>): Promise<T> {
  if (process.getuid?.() !== 0) return work();
  process.seteuid?.(65_534);
  try {
    return await work();
  } finally {
    process.seteuid?.(0);
  }
}

async function makeMany(count: number): Promise<void> {
  for (let at = 0; at < count; at += 500) {
    await mkdir(path.join(root, `f${at}`), { recursive: true });
    await Promise.all(
      Array.from({ length: 500 }, (_, index) => writeFile(path.join(root, `f${at}`, `file${index}.ts`), "")),
    );
  }
}
