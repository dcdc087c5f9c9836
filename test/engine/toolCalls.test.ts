/** A real model calls tools: at any temperature a call names a tool that there is, and its arguments fit the tool's schema. */

import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { silentLog } from "../../engine/log";
import { openSession } from "../../engine/sessions/openSession";
import { callProblem, CallReader, toolInstructions, toolUse, type Tool } from "../../extension/toolCalling";
import type { ChatResult } from "../../engine/protocol";
import { bundleEngine } from "../support/engineBundle";
import { EngineHarness } from "../support/engineHarness";
import { modelFile } from "../support/models";
import { testSeed } from "../support/random";

const modelId = "qwen2.5-coder-0.5b-instruct";
let distFolder: string;

let modelPath: string;

beforeAll(async () => {
  distFolder = fs.mkdtempSync(path.join(os.tmpdir(), "nosa-tools-"));
  await bundleEngine(distFolder);
  modelPath = await modelFile(modelId);
}, 600_000);

afterAll(() => fs.rmSync(distFolder, { recursive: true, force: true }));

async function connected(): Promise<Client> {
  const harness = await EngineHarness.start({
    resolved: { id: "qwen", name: "Qwen", path: modelPath, segmentTokensMax: 2_048, sha256: "" },
    openSession: (resolved, settings, store) =>
      openSession({ distFolder, resolved, settings: { ...settings, threads: 2 }, store, log: silentLog }),
  });
  return harness.connect();
}

type Client = Awaited<ReturnType<EngineHarness["connect"]>>;

interface Question {
  readonly text: string;
  readonly required: boolean;
  readonly temperature: number;
  readonly seed: number;
}

const tools: readonly Tool[] = [
  {
    name: "read_file",
    description: "Reads lines of a file.",
    schema: {
      type: "object",
      properties: {
        path: { type: "string" },
        startLine: { type: "integer" },
        encoding: { enum: ["utf8", "latin1"] },
      },
      required: ["path", "startLine"],
    },
  },
  {
    name: "search",
    description: "Searches the files.",
    schema: {
      type: "object",
      properties: {
        query: { anyOf: [{ type: "string" }, { type: "array", items: { type: "string" }, maxItems: 3 }] },
        limit: { type: "number" },
        exact: { type: "boolean" },
        within: { type: "object", properties: { folder: { type: "string" } }, required: ["folder"] },
      },
      required: ["query", "within"],
    },
  },
];

async function answerOf(client: Client, { text, required, temperature, seed }: Question): Promise<ChatResult> {
  const use = toolUse(tools, required);
  return client.ask("", text, {
    messages: [
      { role: "system", content: toolInstructions(tools, required) },
      { role: "user", content: text },
    ],
    tokensMax: 100,
    temperature,
    seed,
    ...(use === undefined ? {} : { tools: use }),
  });
}

function partsOf(text: string): ReturnType<CallReader["push"]> {
  // Of calls between tags alone: a block of JSON in the words around them is held to nothing.
  const reader = new CallReader();
  return [...reader.push(text), ...reader.end()];
}

describe("a real model that must call a tool", () => {
  it("writes calls that parse and fit, at temperatures where it would write nonsense", async () => {
    const seed = testSeed();
    const client = await connected();
    const where = "Where is the socket opened? Look into src/server.ts first.";
    let whole = 0;
    for (const [round, temperature] of [0, 1, 3, 10].entries()) {
      const answer = await answerOf(client, { text: where, required: true, temperature, seed: seed + round });
      expect(answer.text.startsWith("<tool_call>")).toBe(true);
      const parts = partsOf(answer.text);
      // Only the length may cut a call off.
      if (parts[0]?.kind !== "call" && answer.finish === "length") continue;
      expect([answer.text, parts[0]?.kind]).toEqual([answer.text, "call"]);
      for (const part of parts) {
        if (part.kind === "call")
          expect([answer.text, callProblem(part.call, tools)]).toEqual([answer.text, undefined]);
      }
      whole += 1;
    }
    expect(whole).toBeGreaterThan(0);
  }, 300_000);

  it("answers when it need not call, and what it calls fits as well", async () => {
    const client = await connected();
    const { text } = await answerOf(client, { text: "Say hello.", required: false, temperature: 0, seed: 1 });
    expect(text).not.toBe("");
    for (const part of partsOf(text)) {
      if (part.kind === "call") expect(callProblem(part.call, tools)).toBeUndefined();
    }
  }, 300_000);
});
