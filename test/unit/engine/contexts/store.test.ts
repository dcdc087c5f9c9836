import * as fs from "node:fs";
import * as path from "node:path";
import { describe, expect, it } from "vitest";
import { recordVersion, segmentKey, type ContextRecord, type Identity } from "../../../../engine/contexts/context";
import { ContextStore } from "../../../../engine/contexts/store";
import { StoreOwner } from "../../../../engine/contexts/storeOwner";
import { silentLog } from "../../../../engine/log";
import { temporaryFolder } from "../../../support/folders";

function record(root: string, keys: readonly string[], fingerprint = "f1"): ContextRecord {
  return {
    version: recordVersion,
    root,
    name: path.basename(root),
    model: "tiny",
    options: { editorExcludes: {}, exclude: [], fileKilobytesMax: 512, contextTokensMax: 1_000 },
    fingerprint,
    segmentPositions: 8_192,
    header: { key: "header", tokens: 12 },
    tails: [],
    segments: keys.map((key) => ({
      key,
      tokens: 64,
      files: ["a.ts"],
      blockLines: [[{ path: "a.ts", startLine: 1, endLine: 9 }]],
    })),
    files: [{ path: "a.ts", tokens: 64, bytes: 100, mtimeMs: 1.5, hash: "00" }],
    leftOut: [{ path: "b.png", reason: "binary" }],
  };
}

function save(store: ContextStore, key: string, bytes: number): void {
  fs.writeFileSync(store.pathOf(key), Buffer.alloc(bytes, 7));
  store.saved(key, bytes);
}

describe("ContextStore", () => {
  it("finds everything again after a restart", async () => {
    const folder = temporaryFolder();
    const store = await ContextStore.open(folder, silentLog);
    await store.put(record("/r", ["k1"]));
    save(store, "k1", 1_000);
    const again = await ContextStore.open(folder, silentLog);
    expect(again.get("/r", "f1")).toEqual(record("/r", ["k1"]));
    expect(again.has("k1")).toBe(true);
    expect(again.bytesOf("k1")).toBe(1_000);
    expect(again.bytes).toBe(store.bytes);
  });

  it("keeps what was described last when descriptions come faster than they are written", async () => {
    const folder = temporaryFolder();
    const store = await ContextStore.open(folder, silentLog);
    const keys = Array.from({ length: 20 }, (_, at) => `k${at}`);
    await Promise.all(keys.map((key) => store.put(record("/r", [key]))));
    expect(store.recordsOf("/r").map(({ segments }) => segments[0]?.key)).toEqual(["k19"]);
    expect(
      (await ContextStore.open(folder, silentLog)).recordsOf("/r").map(({ segments }) => segments[0]?.key),
    ).toEqual(["k19"]);
  });

  it("knows a repository by root and model together", async () => {
    const store = await ContextStore.open(temporaryFolder(), silentLog);
    await store.put(record("/r", ["k1"], "f1"));
    await store.put(record("/r", ["k2"], "f2"));
    expect(store.get("/r", "f2")?.segments[0]?.key).toBe("k2");
    expect(store.get("/r", "f3")).toBeUndefined();
    expect(store.recordsOf("/r")).toHaveLength(2);
  });

  it("sets a damaged or foreign record aside and goes on with the others", async () => {
    const folder = temporaryFolder();
    const store = await ContextStore.open(folder, silentLog);
    await store.put(record("/r", ["k1"]));
    await store.put(record("/s", ["k2"]));
    const [first = ""] = fs.readdirSync(path.join(folder, "records"));
    const file = path.join(folder, "records", first);
    fs.writeFileSync(file, fs.readFileSync(file, "utf8").slice(0, -40));
    fs.writeFileSync(path.join(folder, "records", "old.json"), JSON.stringify({ ...record("/t", []), version: 0 }));
    const again = await ContextStore.open(folder, silentLog);
    expect(again.records()).toHaveLength(1);
    expect(fs.readdirSync(path.join(folder, "damaged"))).toHaveLength(2);
  });

  it("removes what an engine that died left half written", async () => {
    const folder = temporaryFolder();
    await ContextStore.open(folder, silentLog);
    fs.writeFileSync(path.join(folder, "segments", "k1.kv.tmp"), "half");
    fs.writeFileSync(path.join(folder, "records", "r.json.123.tmp"), "half");
    await ContextStore.open(folder, silentLog);
    expect(fs.readdirSync(path.join(folder, "segments"))).toEqual([]);
    expect(fs.readdirSync(path.join(folder, "records"))).toEqual([]);
  });

  it("forgets a repository, and leaves what another one needs", async () => {
    const store = await ContextStore.open(temporaryFolder(), silentLog);
    await store.put(record("/r", ["shared", "own"]));
    await store.put(record("/s", ["shared"]));
    for (const key of ["header", "shared", "own"]) save(store, key, 500);
    const freed = await store.forget("/r");
    expect(freed).toBeGreaterThanOrEqual(500);
    expect(freed).toBeLessThan(2_000);
    expect(store.has("own")).toBe(false);
    expect(store.has("shared")).toBe(true);
    expect(fs.existsSync(store.pathOf("own"))).toBe(false);
    expect(await store.forget("/s")).toBeGreaterThanOrEqual(1_000);
    expect(store.bytes).toBe(0);
    expect(await store.forget("/nothing")).toBe(0);
  });

  it("forgets earlier states of files, and what was set aside, with the repository", async () => {
    const folder = temporaryFolder();
    const store = await ContextStore.open(folder, silentLog);
    await store.put(record("/r", ["now", "damaged"]));
    for (const key of ["header", "now", "earlier", "damaged"]) save(store, key, 500);
    await store.setAside("damaged");
    expect(fs.readdirSync(path.join(folder, "damaged"))).toHaveLength(1);
    await store.forget("/r");
    expect(fs.readdirSync(path.join(folder, "segments"))).toEqual([]);
    expect(fs.readdirSync(path.join(folder, "damaged"))).toEqual([]);
  });

  it("sets a damaged segment aside so that it is read again", async () => {
    const folder = temporaryFolder();
    const store = await ContextStore.open(folder, silentLog);
    save(store, "k1", 10);
    await store.setAside("k1");
    await store.setAside("never there");
    expect(store.has("k1")).toBe(false);
    expect(fs.readdirSync(path.join(folder, "damaged"))).toHaveLength(1);
  });

  it("keeps segments that no record names for a while, and lets them go when space is needed", async () => {
    const folder = temporaryFolder();
    const store = await ContextStore.open(folder, silentLog);
    await store.put(record("/r", ["k1"]));
    for (const key of ["k1", "young", "old"]) save(store, key, 100);
    const longAgo = new Date(Date.now() - 30 * 24 * 60 * 60 * 1000);
    fs.utimesSync(store.pathOf("old"), longAgo, longAgo);
    fs.utimesSync(store.pathOf("k1"), longAgo, longAgo);
    const again = await ContextStore.open(folder, silentLog);
    expect([again.has("k1"), again.has("young"), again.has("old")]).toEqual([true, true, false]);
    expect(await again.removeOrphans()).toBe(100);
    expect(again.has("k1")).toBe(true);
  });

  it("keeps folders and records from other users", async () => {
    const folder = path.join(temporaryFolder(), "contexts");
    const store = await ContextStore.open(folder, silentLog);
    await store.put(record("/r", []));
    const [name = ""] = fs.readdirSync(path.join(folder, "records"));
    expect(fs.statSync(path.join(folder, "records", name)).mode & 0o077).toBe(0);
    expect(fs.statSync(path.join(folder, "records")).mode & 0o077).toBe(0);
  });
});

describe("segmentKey", () => {
  const identity: Identity = {
    fingerprint: "f",
    headerTokens: Uint32Array.of(1, 2, 3),
    segmentPositions: 8_192,
    policy: "full",
  };

  it("changes with everything that KV depends on", () => {
    const keys = [
      segmentKey(identity, "c"),
      segmentKey(identity, "d"),
      segmentKey(identity, ""),
      segmentKey({ ...identity, fingerprint: "g" }, "c"),
      segmentKey({ ...identity, segmentPositions: 4_096 }, "c"),
      segmentKey({ ...identity, headerTokens: Uint32Array.of(1, 2, 4) }, "c"),
      segmentKey({ ...identity, headerTokens: Uint32Array.of(1, 2) }, "c"),
    ];
    expect(new Set(keys).size).toBe(keys.length);
    expect(segmentKey({ ...identity }, "c")).toBe(keys[0]);
  });
});

describe("the disk budget", () => {
  it("is kept by letting go of what no record names, then of the repository that was not used for longest", async () => {
    const store = await ContextStore.open(temporaryFolder(), silentLog);
    for (const [root, keys] of [
      ["/old", ["o1", "o2"]],
      ["/new", ["n1", "n2"]],
    ] as const) {
      await store.put(record(root, keys));
      for (const key of keys) save(store, key, 200_000);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    save(store, "orphan", 200_000);
    await store.used("/old");
    await new Promise((resolve) => setTimeout(resolve, 5));
    await store.used("/new");
    const limit = async (bytes: number): Promise<number> => store.limit({ diskGigabytes: bytes / 1e9 });
    await limit(store.bytes);
    expect(await store.makeRoom(100_000)).toBe(true);
    expect(["orphan", "o1", "n1"].map((key) => store.has(key))).toEqual([false, true, true]);
    expect(await store.makeRoom(350_000)).toBe(true);
    expect(["o1", "o2", "n1", "n2"].map((key) => store.has(key))).toEqual([false, true, true, true]);
    expect(fs.existsSync(store.pathOf("o1"))).toBe(false);
  });

  it("takes nothing from a repository that is open, and says that there is no room", async () => {
    const store = await ContextStore.open(temporaryFolder(), silentLog);
    await store.put(record("/open", ["k"]));
    save(store, "k", 200_000);
    store.hold("/open");
    await store.limit({ diskGigabytes: store.bytes / 1e9 });
    expect(await store.makeRoom(1)).toBe(false);
    expect(store.has("k")).toBe(true);
    store.letGo("/open");
    expect(await store.makeRoom(1)).toBe(true);
    expect(store.has("k")).toBe(false);
  });

  it("counts parts of segments that are being read, finds them after a restart, and forgets them with their repository", async () => {
    const folder = temporaryFolder();
    const store = await ContextStore.open(folder, silentLog);
    const key = "a".repeat(64);
    await store.put(record("/r", [key]));
    fs.writeFileSync(`${store.pathOf(key)}.part`, Buffer.alloc(900));
    fs.writeFileSync(`${store.pathOf(key)}.part.log`, Buffer.alloc(100));
    const again = await ContextStore.open(folder, silentLog);
    expect(again.partBytesOf(key)).toBe(1_000);
    expect(again.has(key)).toBe(false);
    await again.forget("/r");
    expect(fs.readdirSync(path.join(folder, "segments"))).toEqual([]);
  });
});

describe("the owner of the folder", () => {
  it("is one process at a time: another one waits, and gives up with a sentence", async () => {
    const folder = temporaryFolder();
    // This test's parent lives as long as the test does.
    fs.writeFileSync(path.join(folder, "owner"), String(process.ppid));
    await expect(StoreOwner.take(folder, 120)).rejects.toThrow(`process ${process.ppid}`);
    const waiting = StoreOwner.take(folder, 5_000);
    setTimeout(() => fs.rmSync(path.join(folder, "owner")), 100);
    await (await waiting).release();
    expect(fs.existsSync(path.join(folder, "owner"))).toBe(false);
  });

  it("is replaced when it died, or when its pid is somebody else's by now", async () => {
    const folder = temporaryFolder();
    const file = path.join(folder, "owner");
    fs.writeFileSync(file, "999999999");
    await (await StoreOwner.take(folder, 100)).release();
    fs.writeFileSync(file, String(process.ppid));
    const longAgo = new Date(Date.now() - 60_000);
    fs.utimesSync(file, longAgo, longAgo);
    await (await StoreOwner.take(folder, 100)).release();
  });
});

describe("a failure of native code", () => {
  it("finds the segment that a native failure names, and no other", async () => {
    const store = await ContextStore.open(temporaryFolder(), silentLog);
    const key = "0123456789abcdef".repeat(4);
    save(store, key, 10);
    expect(store.keyNamedIn(`A block of ${store.pathOf(key)} is not what was written there.`)).toBe(key);
    expect(store.keyNamedIn("A block of /elsewhere/spill is not what was written there.")).toBeUndefined();
    // Of one that somebody has set aside already, too.
    expect(store.keyNamedIn(`${"f".repeat(64)}.kv is gone`)).toBe("f".repeat(64));
  });
});
