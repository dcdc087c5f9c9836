import { describe, expect, it } from "vitest";
import { holes, parseTasks, passes } from "../../../eval/humanEval.mjs";

interface Hole {
  readonly id: string;
  readonly prefix: string;
  readonly line: string;
  readonly suffix: string;
  readonly program: (text: string) => string;
}

const task = {
  task_id: "Demo/0",
  prompt: "def larger(a, b):\n",
  entry_point: "larger",
  canonical_solution: "    # by hand\n    if a > b:\n        return a\n\n    return b\n",
  test: "def check(candidate):\n    assert candidate(2, 1) == 2\n    assert candidate(1, 3) == 3\n",
};
const tasks = parseTasks(`${JSON.stringify(task)}\n`);

describe("holes", () => {
  it("hides each line that says something, with all that stands around it", () => {
    const found: readonly Hole[] = holes(tasks, 10);
    expect(found.map(({ line }) => line).sort()).toEqual(["        return a", "    if a > b:", "    return b"]);
    for (const { prefix, line, suffix } of found) {
      expect(prefix + line + suffix).toBe(task.prompt + task.canonical_solution);
    }
  });

  it("gives the same first ones whatever the count", () => {
    const first: readonly Hole[] = holes(tasks, 3).slice(0, 2);
    expect(holes(tasks, 2)).toMatchObject(first.map(({ id }) => ({ id })));
  });
});

// The judge holds a program to limits that Windows does not know.
describe.skipIf(process.platform === "win32")("passes", () => {
  const found: readonly Hole[] = holes(tasks, 3);
  const judged = (text: string): boolean =>
    found.filter(({ line }) => line.includes("if")).every(({ program }) => passes(program(text)));

  it("takes what the tests take, in whatever words", { timeout: 60_000 }, () => {
    expect(judged("    if a > b:")).toBe(true);
    expect(judged("    if not b >= a:")).toBe(true);
  });

  it("takes nothing else", { timeout: 60_000 }, () => {
    expect(judged("    if a < b:")).toBe(false);
    expect(judged("    if a >")).toBe(false);
    expect(passes("import sys\nprint('yes')\nsys.exit(0)\n")).toBe(false);
    expect(passes("open('/tmp/nosa-judge-writes', 'w')\n")).toBe(false);
    expect(passes("import subprocess\nsubprocess.run(['true'])\n")).toBe(false);
  });
});
