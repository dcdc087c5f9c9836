import { describe, expect, it } from "vitest";
import { Scope } from "../../../../extension/util/disposables";

describe("a scope", () => {
  it("lets go in reverse order, once", () => {
    const gone: number[] = [];
    const scope = new Scope();
    for (const id of [1, 2, 3]) scope.add({ dispose: () => gone.push(id) });
    scope.dispose();
    scope.dispose();
    expect(gone).toEqual([3, 2, 1]);
  });

  it("disposes at once what comes after the end", () => {
    const scope = new Scope();
    scope.dispose();
    let isGone = false;
    scope.add({ dispose: () => (isGone = true) });
    expect(isGone).toBe(true);
  });
});
