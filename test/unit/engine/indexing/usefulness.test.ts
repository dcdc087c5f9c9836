import { describe, expect, it } from "vitest";
import { byUsefulness } from "../../../../engine/indexing/usefulness";

const file = (path: string, bytes = 100) => ({ path, bytes, mtimeMs: 0, blob: "" });
const order = (paths: readonly string[], open: readonly string[] = []): readonly string[] =>
  byUsefulness(
    paths.map((path) => file(path)),
    new Set(open),
  ).map(({ path }) => path);

describe("byUsefulness", () => {
  it("puts open files, then the README, then manifests, source, documents, and tests last", () => {
    const paths = [
      "test/a.test.ts",
      "docs/guide.md",
      "src/deep/b.ts",
      "package.json",
      "README.md",
      "data.csv",
      "src/c.ts",
    ];
    expect(order(paths, ["src/deep/b.ts"])).toEqual([
      "src/deep/b.ts",
      "README.md",
      "package.json",
      "src/c.ts",
      "docs/guide.md",
      "data.csv",
      "test/a.test.ts",
    ]);
  });

  it("knows tests by folder and by name in several languages", () => {
    for (const test of ["a/tests/x.py", "pkg/x_test.go", "x.spec.ts", "test_x.py", "fixtures/p.json"]) {
      expect(order([test, "zzz.unknown"])).toEqual(["zzz.unknown", test]);
    }
  });

  it("puts shallow before deep and small before large, and does not depend on the order it is given", () => {
    const files = [file("src/a/b/c.ts", 10), file("src/big.ts", 900), file("src/small.ts", 10)];
    const paths = byUsefulness(files, new Set()).map(({ path }) => path);
    expect(paths).toEqual(["src/small.ts", "src/big.ts", "src/a/b/c.ts"]);
    expect(byUsefulness([...files].reverse(), new Set()).map(({ path }) => path)).toEqual(paths);
  });

  it("puts what is near an open file before what is far, within a rank", () => {
    const paths = ["src/a/x.ts", "src/b/y.ts", "src/b/deep/z.ts", "src/top.ts", "lib/near.ts", "test/b.test.ts"];
    const [opened, ...others] = order([...paths, "src/b/open.ts"], ["src/b/open.ts"]);
    expect(opened).toBe("src/b/open.ts");
    expect(others).toEqual([
      "src/b/y.ts",
      "src/top.ts",
      "src/b/deep/z.ts",
      "src/a/x.ts",
      "lib/near.ts",
      "test/b.test.ts",
    ]);
    const [first] = order(["far/one/x.ts", "src/y.ts"], ["far/one/open.ts", "other/open.ts"]);
    expect(first).toBe("far/one/x.ts");
  });
});
