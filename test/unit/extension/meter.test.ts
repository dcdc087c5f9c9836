import { describe, expect, it } from "vitest";
import { budgetProblem } from "../../../extension/budgets";
import { globFor } from "../../../extension/contextActions";
import { gauges } from "../../../extension/meter";
import { recallText } from "../../../extension/repoTool";
import { reportText } from "../../../extension/selfTest";
import { contextStatus, engineStatus } from "../../support/engineStatus";

const status = engineStatus({
  contexts: [contextStatus({ tokens: 12_000 }), contextStatus({ root: "/code/other", tokens: 900_000 })],
  memory: { bytes: 61e6, bytesMax: 2e9, diskBytes: 152e6, diskBytesMax: 0, diskBytesRead: 0 },
});

describe("the meter", () => {
  it("shows tokens of this window's repositories, memory and disk against their budgets", () => {
    expect(gauges(status, ["/code/shop"], 48_000).map(({ label, text, percent }) => [label, text, percent])).toEqual([
      ["Tokens read", "12k of 48k", 25],
      ["In memory", "61 MB of 2 GB", 3],
      ["On disk", "152 MB", 0],
    ]);
  });

  it("shows the memory of a device only where there is one", () => {
    const memory = { ...status.memory, deviceBytes: 1e9, deviceBytesMax: 4e9 };
    const [, device] = gauges({ ...status, memory }, [], 1_000);
    expect(device).toMatchObject({ id: "device", text: "1 GB of 4 GB", percent: 25 });
  });
});

describe("a budget", () => {
  it("is a number, and tokens are whole and enough", () => {
    for (const text of ["4", "0", " 1.5 "]) expect(budgetProblem("memoryGigabytes", text)).toBeUndefined();
    for (const text of ["", "four", "-1", "Infinity"])
      expect(budgetProblem("diskGigabytes", text)).toBe("A number, please.");
    expect(budgetProblem("contextTokensMax", "2000")).toBeUndefined();
    for (const text of ["100", "2000.5"]) expect(budgetProblem("contextTokensMax", text)).toBe("At least 1024 tokens.");
  });
});

it("a glob for a path means that path and no other", () => {
  expect(globFor("src/a.ts")).toBe("src/a.ts");
  expect(globFor("src/")).toBe("src/**");
  expect(globFor("app/[id]/(x)/*.ts")).toBe("app/[[]id[]]/[(]x[)]/[*].ts");
});

describe("what another model gets", () => {
  const spans = [
    { label: "a.ts:1-2", text: "one\ntwo" },
    { label: "b.ts:3", text: "three" },
    { label: "gone.ts:9", text: "" },
  ];

  it("is the answer and the lines, best first", () => {
    expect(recallText({ text: " In a.\n" }, spans, 1_000)).toBe(
      "In a.\n\na.ts:1-2\none\ntwo\n\nb.ts:3\nthree\n\ngone.ts:9",
    );
  });

  it("never exceeds what was asked for, and holds whole pieces", () => {
    for (let most = 0; most < 60; most += 1) {
      const text = recallText({ text: "In a." }, spans, most);
      expect(text.length).toBeLessThanOrEqual(most);
      if (text.includes("one")) expect(text).toContain("one\ntwo");
    }
  });
});

it("the self-test's report names what failed, and holds no table that breaks", () => {
  const checks = [
    { name: "The engine answers", passed: true, detail: "1 ms" },
    { name: "The model answers", passed: false, detail: "a | b" },
  ];
  const text = reportText(checks, status);
  expect(text).toContain("1 of 2 checks failed.");
  expect(text).toContain("| ✗ | The model answers | a \\| b |");
  expect(text).toContain("- Device: CPU AVX-512 VNNI");
  expect(reportText([], null)).toContain("Everything works.");
});
