import * as fs from "node:fs";
import * as path from "node:path";
import { describe, expect, it } from "vitest";
import { adapterFor } from "../../../../engine/models/adapters";
import { knownModels } from "../../../../engine/models/manifest";
import { temporaryFolder } from "../../../support/folders";

function safetensors(metadata: object): Buffer {
  const header = Buffer.from(JSON.stringify({ __metadata__: metadata }));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  return Buffer.concat([length, header]);
}

describe("adapterFor", () => {
  it("finds the adapter that names the model's hash, past files that are none", async () => {
    const folder = temporaryFolder();
    fs.writeFileSync(path.join(folder, "a.safetensors"), "no");
    fs.writeFileSync(path.join(folder, "b.safetensors"), safetensors({ base_sha256: "11" }));
    fs.writeFileSync(path.join(folder, "c.safetensors"), safetensors({ base_sha256: "22" }));
    fs.writeFileSync(path.join(folder, "d.txt"), "33");
    expect(await adapterFor(folder, "22")).toBe(path.join(folder, "c.safetensors"));
    expect(await adapterFor(folder, "44")).toBeUndefined();
    expect(await adapterFor(folder, "")).toBeUndefined();
    expect(await adapterFor(path.join(folder, "gone"), "11")).toBeUndefined();
  });

  it("has one, with its figures, for the default model", async () => {
    const model = knownModels.find(({ recommended }) => recommended);
    const folder = temporaryFolder();
    const from = path.resolve("adapters", model?.id ?? "", "adapter.safetensors");
    fs.symlinkSync(from, path.join(folder, "default.safetensors"));
    expect(await adapterFor(folder, model?.packages.sha256 ?? "")).toBe(path.join(folder, "default.safetensors"));
  });
});
