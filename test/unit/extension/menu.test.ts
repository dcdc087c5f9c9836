import { describe, expect, it } from "vitest";
import { plainFailure } from "../../../extension/errors";
import { menuItems } from "../../../extension/menu";
import type { StatusInput } from "../../../extension/statusBar";
import { engineStatus } from "../../support/engineStatus";

const status = engineStatus();
const input: StatusInput = { state: { kind: "connected" }, status, roots: ["/code/shop"], completionsEnabled: true };

describe("the menu of the status bar", () => {
  it.each<[string, Partial<StatusInput>, string]>([
    ["asking, when the repository was read", {}, "nosa.ask"],
    ["reading, when it was not", { roots: ["/code/new"] }, "nosa.indexRepository"],
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
    for (const change of [{}, { roots: ["/code/new"] }, { status: { ...status, model: null } }]) {
      const commands = menuItems({ ...input, ...change }).map((item) => item.command);
      expect(new Set(commands).size).toBe(commands.length);
    }
  });
});
