import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import type { ErrorKind } from "../../../engine/protocol";
import {
  Failure,
  failureFrom,
  failureView,
  isCancellation,
  plainFailure,
  type FailureKind,
} from "../../../extension/errors";

function protocolError(message: string, fields: object): Error {
  return Object.assign(new Error(message), fields);
}

describe("errors", () => {
  it("shows the engine's own sentence, with the action of its kind", () => {
    const error = protocolError("The file half.gguf ends too early.", { code: -32050, data: { kind: "modelBroken" } });
    expect(failureView(failureFrom(error))).toEqual({
      text: "The file half.gguf ends too early.",
      action: { label: "Download Model", command: "nosa.downloadModel" },
    });
  });

  it.each<[FailureKind, string | undefined]>([
    ["modelMissing", "nosa.downloadModel"],
    ["notIndexed", "nosa.indexRepository"],
    ["noSpace", "nosa.forgetRepository"],
    ["modelUnsupported", "nosa.selectModel"],
    ["forbidden", "nosa.restartEngine"],
    ["untrusted", "workbench.trust.manage"],
    ["draining", undefined],
  ])("offers for %s the command %s", (kind, command) => {
    expect(failureView(plainFailure(kind)).action?.command).toBe(command);
  });

  it("has a sentence that ends like one for every kind, and offers only commands there are", () => {
    const manifest: { contributes: { commands: { command: string }[] } } = JSON.parse(
      readFileSync("package.json", "utf8"),
    );
    const ours = manifest.contributes.commands.map(({ command }) => command);
    const source = readFileSync("engine/protocol.ts", "utf8");
    const union = /export type ErrorKind =([^;]+);/.exec(source)?.[1] ?? "";
    const kinds = [...union.matchAll(/"(\w+)"/g)].map((match) => match[1] as ErrorKind);
    expect(kinds.length).toBeGreaterThan(10);
    for (const kind of kinds) {
      const { text, action } = failureView(new Failure(kind, ""));
      expect(text, kind).toMatch(/^[A-Z].*\.$/);
      if (action?.command.startsWith("nosa.") === true) expect(ours).toContain(action.command);
    }
  });

  it("takes a kind it does not know for an internal one, and keeps the sentence", () => {
    const failure = failureFrom(protocolError("Something new.", { data: { kind: "toString" } }));
    expect(failure).toMatchObject({ kind: "internal", message: "Something new." });
  });

  it.each([-32097, -32099, 1, 2])("knows a lost connection by its code %i", (code) => {
    expect(failureFrom(protocolError("Pending response rejected", { code })).kind).toBe("connectionLost");
  });

  it("does not take cancelling for a failure", () => {
    expect(isCancellation(protocolError("x", { code: -32800 }))).toBe(true);
    expect(isCancellation(Object.assign(new Error("Canceled"), { name: "Canceled" }))).toBe(true);
    expect(isCancellation(new Error("Canceled by nobody"))).toBe(false);
    expect(isCancellation("Canceled")).toBe(false);
  });

  it("survives whatever is thrown", () => {
    expect(failureFrom(undefined).kind).toBe("internal");
    expect(failureFrom(new Error("boom")).message).toContain("boom");
  });
});
