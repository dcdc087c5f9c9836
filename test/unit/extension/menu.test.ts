import { describe, expect, it } from "vitest";
import type { EngineStatus } from "../../../engine/protocol";
import { plainFailure } from "../../../extension/errors";
import { menuItems } from "../../../extension/menu";
import type { StatusInput } from "../../../extension/statusBar";

const status: EngineStatus = {
  engineVersion: "0.1.0",
  model: { id: "half", name: "Half", loaded: true },
  device: "CPU",
  contexts: [
    {
      root: "/a",
      files: 1,
      tokens: 10,
      complete: true,
      attendedBlocks: 0,
      totalBlocks: 0,
      policy: "full",
      blocksRead: 0,
      selection: "adapter",
    },
  ],
  activity: { kind: "idle" },
  clients: 1,
  kvBytes: 0,
  memory: { bytes: 0, bytesMax: 0, diskBytes: 0, diskBytesMax: 0, diskBytesRead: 0 },
  problem: "",
};
const input: StatusInput = { state: { kind: "connected" }, status, roots: ["/a"], completionsEnabled: true };

describe("the menu of the status bar", () => {
  it.each<[string, Partial<StatusInput>, string]>([
    ["asking, when the repository was read", {}, "nosa.ask"],
    ["reading, when it was not", { roots: ["/b"] }, "nosa.indexRepository"],
    ["a model, when there is none", { status: { ...status, model: null } }, "nosa.downloadModel"],
    [
      "a restart, when the engine failed",
      { status: null, state: { kind: "failed", failure: plainFailure("engineUnavailable") } },
      "nosa.restartEngine",
    ],
  ])("begins with %s", (_, change, command) => {
    expect(menuItems({ ...input, ...change })[0]?.command).toBe(command);
  });

  it("offers each command once", () => {
    for (const change of [{}, { roots: ["/b"] }, { status: { ...status, model: null } }]) {
      const commands = menuItems({ ...input, ...change }).map((item) => item.command);
      expect(new Set(commands).size).toBe(commands.length);
    }
  });
});
