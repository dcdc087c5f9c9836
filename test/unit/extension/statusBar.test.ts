import { describe, expect, it } from "vitest";
import { plainFailure } from "../../../extension/errors";
import { statusView, type StatusInput } from "../../../extension/statusBar";
import { contextStatus, engineStatus } from "../../support/engineStatus";

const status = engineStatus({
  contexts: [
    contextStatus({ attendedBlocks: 64, totalBlocks: 193, policy: "nosa", blocksRead: 12 }),
    contextStatus({ root: "/code/other", files: 3, tokens: 900_000 }),
  ],
});

const input: StatusInput = { state: { kind: "connected" }, status, roots: ["/code/shop"], completionsEnabled: true };

describe("the status bar", () => {
  it("names the model, the device and the tokens of this window's repositories", () => {
    const view = statusView(input);
    expect(view.text).toBe("$(book) Nosa: Qwen2.5-Coder 0.5B · CPU · 12.3k tokens");
    expect(view.tone).toBe("plain");
    expect(view.tooltip.join("\n")).toContain(
      "**shop** 41 files · 12.3k tokens · the last request attended to 64 of 193",
    );
    expect(view.tooltip.join("\n")).not.toContain("other");
  });

  it("adds up the roots of a window with several", () => {
    expect(statusView({ ...input, roots: ["/code/shop", "/code/other"] }).text).toContain("912k tokens");
  });

  it("says that nothing was read yet", () => {
    expect(statusView({ ...input, roots: ["/code/new"] }).text).toContain("nothing read");
  });

  it("shows progress, speed and time left while indexing", () => {
    const activity = { kind: "indexing", percent: 43, tokensPerSecond: 351.4, secondsLeft: 118 } as const;
    const view = statusView({ ...input, status: { ...status, activity } });
    expect(view.text).toBe("$(loading~spin) Nosa: reading 43% · 351 tokens/s · 2 min left");
  });

  it("leaves speed and time out while they are unknown", () => {
    const activity = { kind: "indexing", percent: 0, tokensPerSecond: 0, secondsLeft: -1 } as const;
    expect(statusView({ ...input, status: { ...status, activity } }).text).toBe("$(loading~spin) Nosa: reading 0%");
  });

  it("stays as it is while a completion runs: it neither flickers with each key nor turns while somebody types", () => {
    const completing = statusView({ ...input, status: { ...status, activity: { kind: "completing" } } });
    expect(completing.text).toBe("$(book) Nosa: Qwen2.5-Coder 0.5B · CPU · 12.3k tokens");
  });

  it("warns of a problem and reads it out", () => {
    const view = statusView({ ...input, status: { ...status, problem: "The disk is full." } });
    expect(view).toMatchObject({ tone: "warning", label: "Nosa: The disk is full." });
    expect(view.text).toContain("$(warning)");
    expect(view.tooltip[0]).toContain("The disk is full.");
  });

  it("offers a model when there is none", () => {
    expect(statusView({ ...input, status: { ...status, model: null } }).text).toBe(
      "$(cloud-download) Nosa: no model yet",
    );
  });

  it("marks completions that are off", () => {
    expect(statusView({ ...input, completionsEnabled: false }).text).toContain("$(circle-slash)");
  });

  it("tells starting, restarting and failed apart", () => {
    expect(statusView({ ...input, status: null, state: { kind: "connecting" } }).text).toContain("starting");
    expect(statusView({ ...input, status: null, state: { kind: "pausing" } }).text).toContain("restarting");
    const failure = plainFailure("versionMismatch");
    const failed = statusView({ ...input, status: null, state: { kind: "failed", failure } });
    expect(failed).toMatchObject({ tone: "error", tooltip: [failure.message] });
  });
});
