import { randomBytes } from "node:crypto";
import { expect, it } from "vitest";
import { parseGgufIdentity } from "../../../../engine/models/ggufIdentity";
import { ggufBytes } from "../../../support/ggufHeader";

const bytes = ggufBytes({
  scalars: {
    "general.architecture": "qwen2",
    "some.flag": true,
    "general.name": "A Model",
    "qwen2.context_length": 32_768,
  },
  arrays: { "tokenizer.ggml.tokens": ["a", "b"] },
});

it("reads what a file says it is", () => {
  expect(parseGgufIdentity(bytes)).toEqual({ architecture: "qwen2", name: "A Model", contextLength: 32_768 });
});

it("knows what is no GGUF file, and reads nothing beyond a damaged or cut header", () => {
  expect(parseGgufIdentity(Buffer.from("GGML"))).toBeUndefined();
  expect(parseGgufIdentity(randomBytes(4_000))).toBeUndefined();
  for (let length = 0; length < bytes.length; length++) parseGgufIdentity(bytes.subarray(0, length));
  for (let at = 4; at < bytes.length; at++) {
    const damaged = Buffer.from(bytes);
    damaged[at] = 0xff;
    parseGgufIdentity(damaged);
  }
});
