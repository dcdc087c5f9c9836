import { mkdir, readdir, truncate, writeFile } from "node:fs/promises";
import * as path from "node:path";
import { beforeEach, expect, it } from "vitest";
import { knownModels } from "../../../../engine/models/manifest";
import { ModelRegistry } from "../../../../engine/models/registry";
import { ggufBytes } from "../../../support/ggufHeader";
import { tempFolders } from "../../../support/tempFolder";

const temp = tempFolders();
const large = 32e9;
let folder: string;

beforeEach(async () => {
  folder = await temp();
});

/** A file of the size that the manifest says, holding nothing. */
async function put(id: string, bytes?: number): Promise<string> {
  const model = knownModels.find((each) => each.id === id);
  if (model === undefined) throw new Error(`No model ${id}.`);
  const file = path.join(folder, model.file);
  await writeFile(file, "");
  await truncate(file, bytes ?? model.bytes);
  return file;
}

it("recommends the manifest's model where it fits, and the small one on a small machine", async () => {
  expect((await ModelRegistry.open(folder, large)).knownId("")).toBe("qwen2.5-coder-0.5b-instruct");
  expect((await ModelRegistry.open(folder, 1.8e9)).knownId("")).toBe("smollm2-135m-instruct");
  expect((await ModelRegistry.open(folder, 1e6)).knownId("")).toBe("smollm2-135m-instruct");
});

it("lists the fitting models first, then the large ones first", async () => {
  const entries = await (await ModelRegistry.open(folder, 2.5e9)).entries();
  expect(entries.map(({ id, fitsMachine }) => [id, fitsMachine])).toEqual([
    ["qwen2.5-coder-0.5b-instruct", true],
    ["smollm2-135m-instruct", true],
    ["qwen2.5-coder-1.5b-instruct", false],
  ]);
  expect(entries.filter(({ recommended }) => recommended)).toHaveLength(1);
  expect(entries.every(({ onDisk }) => !onDisk)).toBe(true);
});

it("says what to do about a missing, a truncated and an unknown model", async () => {
  const registry = await ModelRegistry.open(folder, large);
  await expect(registry.resolve("")).rejects.toMatchObject({
    kind: "modelMissing",
    message: expect.stringContaining("download it"),
  });
  await put("qwen2.5-coder-0.5b-instruct", 1_000_000);
  await expect(registry.resolve("")).rejects.toMatchObject({
    kind: "modelBroken",
    message: expect.stringContaining("download it again"),
  });
  expect((await registry.entries()).find(({ id }) => id === "qwen2.5-coder-0.5b-instruct")?.onDisk).toBe(false);
  await expect(registry.resolve("gpt-9")).rejects.toMatchObject({ kind: "badRequest" });
  expect(registry.knownId("gpt-9")).toBeUndefined();
  expect(registry.knownId("/models/x.gguf")).toBeUndefined();
});

it("takes another model that is there rather than none", async () => {
  const file = await put("smollm2-135m-instruct");
  const registry = await ModelRegistry.open(folder, large);
  expect(await registry.resolve("")).toEqual({
    id: "smollm2-135m-instruct",
    name: "SmolLM2 135M Instruct",
    path: file,
    segmentTokensMax: 4_096,
    sha256: "",
  });
  await put("qwen2.5-coder-0.5b-instruct");
  expect((await registry.resolve("")).id).toBe("qwen2.5-coder-0.5b-instruct");
});

it("takes a model of the user's own by its path, with segments that fit its positions", async () => {
  const registry = await ModelRegistry.open(folder, large);
  const own = path.join(folder, "own.gguf");
  await writeFile(
    own,
    ggufBytes({
      scalars: { "general.architecture": "llama", "general.name": "Own", "llama.context_length": 4_096 },
      arrays: {},
    }),
  );
  expect(await registry.resolve(own)).toMatchObject({ id: own, name: "own.gguf", path: own, segmentTokensMax: 1_024 });

  const tensors = path.join(folder, "tensors");
  await mkdir(tensors);
  await writeFile(path.join(tensors, "config.json"), JSON.stringify({ max_position_embeddings: 131_072 }));
  expect((await registry.resolve(tensors)).segmentTokensMax).toBe(8_192);

  await writeFile(path.join(folder, "not.gguf"), "GGUB");
  await expect(registry.resolve(path.join(folder, "not.gguf"))).rejects.toMatchObject({ kind: "modelBroken" });
  await expect(registry.resolve(path.join(folder, "nowhere.gguf"))).rejects.toMatchObject({ kind: "modelMissing" });
  await expect(registry.resolve(folder)).rejects.toMatchObject({ kind: "modelBroken" });
});

it("says how much of a stopped download is there, and deletes it, and a whole model with its note", async () => {
  const id = "smollm2-135m-instruct";
  const registry = await ModelRegistry.open(folder, large);
  const entry = async () => (await registry.entries()).find((each) => each.id === id);
  expect(await registry.delete(id)).toBe(0);
  const file = await put(id);
  await writeFile(`${file}.verified.json`, "{}");
  expect(await entry()).toMatchObject({ onDisk: true, bytesArrived: 0 });
  const bytes = knownModels.find((each) => each.id === id)?.bytes ?? 0;
  expect(await registry.delete(id)).toBe(bytes + 2);
  await writeFile(`${file}.hub-partial`, "12345");
  expect(await entry()).toMatchObject({ onDisk: false, bytesArrived: 5 });
  expect(await registry.delete(id)).toBe(5);
  expect(await readdir(folder)).toEqual([]);
});

it("deletes nothing that is not its own", async () => {
  const own = path.join(folder, "mine.gguf");
  await writeFile(own, "x");
  const registry = await ModelRegistry.open(folder, large);
  for (const id of [own, "../mine.gguf", "mine.gguf", ""]) {
    await expect(registry.delete(id)).rejects.toMatchObject({ kind: "badRequest" });
  }
  expect(await readdir(folder)).toEqual(["mine.gguf"]);
});
