import { describe, expect, it } from "vitest";
import { bannerView, type BannerInput } from "../../../../extension/chatView/banner";
import { plainFailure } from "../../../../extension/errors";
import { engineStatus } from "../../../support/engineStatus";

const status = engineStatus();
const input: BannerInput = {
  state: { kind: "connected" },
  status,
  folder: { name: "shop", root: "/code/shop" },
  isTrusted: true,
};

describe("the banner", () => {
  it("says what was read and by which model", () => {
    expect(bannerView(input)).toEqual({ text: "shop: 41 files, 12.3k tokens · Qwen2.5-Coder 0.5B", action: null });
  });

  it.each<[string, Partial<BannerInput>, string | undefined]>([
    ["a repository that was not read", { folder: { name: "new", root: "/code/new" } }, "nosa.indexRepository"],
    ["no model", { status: { ...status, model: null } }, "nosa.downloadModel"],
    ["no folder", { folder: null }, "workbench.action.files.openFolder"],
    ["no trust", { isTrusted: false }, "workbench.trust.manage"],
    ["a problem", { status: { ...status, problem: "The disk is full." } }, "nosa.showLog"],
    ["a failed engine", { state: { kind: "failed", failure: plainFailure("engineUnavailable") } }, "nosa.showLog"],
    ["an engine that starts", { status: null }, undefined],
  ])("offers the one thing to do for %s", (_, change, command) => {
    const view = bannerView({ ...input, ...change });
    expect(view.action?.command).toBe(command);
    expect(view.text).toMatch(/\w/);
  });

  it("offers to go on with a repository that was half read", () => {
    const contexts = status.contexts.map((context) => ({ ...context, complete: false }));
    const view = bannerView({ ...input, status: { ...status, contexts } });
    expect(view.action).toEqual({ label: "Go On Reading", command: "nosa.indexRepository" });
  });

  it("follows the reading", () => {
    const activity = { kind: "indexing", percent: 12, tokensPerSecond: 300, secondsLeft: 59 } as const;
    expect(bannerView({ ...input, status: { ...status, activity } }).text).toBe(
      "Reading 12% · 300 tokens/s · 59 s left",
    );
  });
});
