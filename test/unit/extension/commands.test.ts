import * as vscode from "vscode";
import { afterEach, describe, expect, it, vi } from "vitest";
import { registerCommands } from "../../../extension/commands";

afterEach(() => vi.restoreAllMocks());

describe("commands", () => {
  it("are registered by their id, tell of what they throw, and go with the scope", async () => {
    const registered = new Map<string, () => Promise<void>>();
    vi.spyOn(vscode.commands, "registerCommand").mockImplementation((id, run) => {
      registered.set(id, run as () => Promise<void>);
      return { dispose: () => registered.delete(id) };
    });
    const errors: unknown[] = [];
    const failure = new Error("no");
    const scope = registerCommands(
      {
        "nosa.a": () => undefined,
        "nosa.b": () => Promise.reject(failure),
        "nosa.c": () => {
          throw failure;
        },
      },
      (error) => errors.push(error),
    );
    for (const run of registered.values()) await run();
    expect([...registered.keys()]).toEqual(["nosa.a", "nosa.b", "nosa.c"]);
    expect(errors).toEqual([failure, failure]);
    scope.dispose();
    expect(registered.size).toBe(0);
  });
});
