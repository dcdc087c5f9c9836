import * as vscode from "vscode";
import { afterEach, describe, expect, it, vi } from "vitest";
import { goneRow, registerCommands } from "../../../extension/commands";
import { ContextActions, type ContextActionsOptions } from "../../../extension/contextActions";

afterEach(() => vi.restoreAllMocks());

describe("commands", () => {
  it("know a row that is gone from nothing that was chosen", async () => {
    let run: (...handed: readonly unknown[]) => unknown = () => undefined;
    vi.spyOn(vscode.commands, "registerCommand").mockImplementation((_id, registered) => {
      run = registered as typeof run;
      return { dispose: () => undefined };
    });
    const handed: unknown[] = [];
    registerCommands({ "nosa.a": (what) => handed.push(what) }, () => undefined);
    await run();
    await run(undefined);
    await run("a row");
    expect(handed).toEqual([undefined, goneRow, "a row"]);
    // Refused before anything is looked at.
    const actions = new ContextActions({} as ContextActionsOptions);
    await expect(actions.exclude(goneRow)).rejects.toMatchObject({ kind: "rowGone" });
  });

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
