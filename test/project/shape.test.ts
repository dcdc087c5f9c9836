/** What anybody who opens the project may rely on finding. */
import { existsSync, readFileSync, statSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { inRoot } from "../../scripts/lib/paths.mjs";

interface Manifest {
  readonly engines: { readonly vscode: string; readonly node: string };
  readonly scripts: Readonly<Record<string, string>>;
  readonly devDependencies: Readonly<Record<string, string>>;
  readonly main: string;
}

const manifest = JSON.parse(readFileSync(inRoot("package.json"), "utf8")) as Manifest;

describe("the top level", () => {
  test.each([
    "package.json",
    "tsconfig.json",
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LICENSE",
  ])("has %s, with something in it", (name) => expect(statSync(inRoot(name)).size).toBeGreaterThan(100));

  test.each(["extension", "engine", "native", "kernels", "media", "test", "scripts", "bench", "decisions", "samples"])(
    "has the folder %s",
    (name) => expect(statSync(inRoot(name)).isDirectory()).toBe(true),
  );

  test("continuous integration runs what everybody runs", () => {
    expect(readFileSync(inRoot(".ci/run"), "utf8")).toMatch(/^exec npm test$/m);
  });
});

describe("the manifest", () => {
  test("is typed against the oldest editor it supports", () => {
    expect(manifest.engines.vscode).toBe(`^${manifest.devDependencies["@types/vscode"] ?? ""}`);
  });

  test("pins every package", () => {
    for (const [name, version] of Object.entries(manifest.devDependencies))
      expect([name, version]).toEqual([name, expect.stringMatching(/^\d+\.\d+\.\d+/)]);
  });

  test("has no package at run time: everything is bundled", () => {
    expect(manifest).not.toHaveProperty("dependencies");
  });

  test.each(Object.entries(manifest.scripts).filter(([, command]) => command.startsWith("node ")))(
    "npm run %s names a program that exists",
    (_name, command) => {
      expect(existsSync(inRoot(command.split(" ")[1] ?? ""))).toBe(true);
    },
  );

  test("takes its texts from package.nls.json, all of them and no more", () => {
    const texts = JSON.parse(readFileSync(inRoot("package.nls.json"), "utf8")) as Record<string, string>;
    const used = [...readFileSync(inRoot("package.json"), "utf8").matchAll(/"%([\w.-]+)%"/g)].map(
      (match) => match[1] ?? "",
    );
    const missing = used.filter((key) => texts[key] === undefined);
    expect(missing).toEqual([]);
    const unused = Object.keys(texts).filter(
      (key) => !used.includes(key) && !["displayName", "description"].includes(key),
    );
    expect(unused).toEqual([]);
  });

  test("names pictures that exist", () => {
    const named = [...readFileSync(inRoot("package.json"), "utf8").matchAll(/"(media\/[^"*]+\.(?:svg|png))"/g)].map(
      (match) => match[1] ?? "",
    );
    expect(named.length).toBeGreaterThan(0);
    for (const name of named) expect(existsSync(inRoot(name)), name).toBe(true);
  });

  test("asks of the compiler to be strict", () => {
    const { compilerOptions } = JSON.parse(readFileSync(inRoot("tsconfig.json"), "utf8")) as {
      compilerOptions: Record<string, unknown>;
    };
    expect(compilerOptions).toMatchObject({ strict: true, noUncheckedIndexedAccess: true, noImplicitOverride: true });
  });
});

test("the lock file names no registry, so that a mirror serves as well", () => {
  const lock = readFileSync(inRoot("package-lock.json"), "utf8");
  expect(lock.includes('"resolved"')).toBe(false);
});
