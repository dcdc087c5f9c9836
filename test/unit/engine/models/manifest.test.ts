import { expect, it } from "vitest";
import { knownModels } from "../../../../engine/models/manifest";

it.each(knownModels.map((model) => [model.id, model] as const))("%s adds up", (_, model) => {
  expect(model.packages.parts.reduce((sum, part) => sum + part.bytes, 0)).toBe(model.packages.bytes);
  for (const sha256 of [model.packages.sha256, ...model.packages.parts.map((part) => part.sha256)])
    expect(sha256).toMatch(/^[0-9a-f]{64}$/);
  expect(2 * model.segmentTokensMax).toBeLessThanOrEqual(model.positions);
  expect(model.file).toBe(model.file.toLowerCase());
});

it("names each model and each file once, and recommends one", () => {
  expect(new Set(knownModels.map(({ id }) => id)).size).toBe(knownModels.length);
  expect(new Set(knownModels.map(({ file }) => file)).size).toBe(knownModels.length);
  expect(knownModels.filter(({ recommended }) => recommended)).toHaveLength(1);
});
