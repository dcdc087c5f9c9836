/** What the documents say is true where a program can tell. */
import { existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { inRoot, root } from "../../scripts/lib/paths.mjs";
import { run } from "../../scripts/lib/run.mjs";

const tracked = (await run("git", ["ls-files", "--cached", "--others", "--exclude-standard"])).stdout
  .split("\n")
  .filter((name) => name !== "" && existsSync(inRoot(name)));
const documents = tracked.filter((name) => name.endsWith(".md") && !name.startsWith("samples/"));
const manifest = JSON.parse(readFileSync(inRoot("package.json"), "utf8")) as {
  scripts: Record<string, string>;
  contributes: { configuration: { properties: Record<string, unknown> }; commands: { title: string }[] };
};

describe.each(documents)("%s", (name) => {
  const text = readFileSync(inRoot(name), "utf8");

  test("links to files that exist", () => {
    const targets = [...text.matchAll(/\]\(([^)\s]+)\)/g)]
      .map((match) => match[1] ?? "")
      .filter((target) => !/^(https?:|mailto:|#|command:)/.test(target));
    const broken = targets.filter((target) => !existsSync(inRoot(path.dirname(name), target.replace(/#.*$/, ""))));
    expect(broken).toEqual([]);
  });

  test("names npm commands that exist", () => {
    const named = [...text.matchAll(/\bnpm run (?:-s )?([\w-]+)/g)].map((match) => match[1] ?? "");
    expect(named.filter((script) => manifest.scripts[script] === undefined)).toEqual([]);
  });
});

describe("README.md", () => {
  const text = readFileSync(inRoot("README.md"), "utf8");

  test("explains every setting", () => {
    const missing = Object.keys(manifest.contributes.configuration.properties).filter(
      (setting) => !text.includes(`\`${setting}\``),
    );
    expect(missing).toEqual([]);
  });

  test("gives the two commands", () => {
    expect(text).toContain("npm start");
    expect(text).toContain("npm test");
  });
});

test("nothing names the machine it was written on", () => {
  // Short or shared names, such as a home of "/", would be found everywhere.
  const places = [homedir(), root, path.dirname(root)].filter((place) => place.length > 3);
  const pattern = new RegExp(
    `(?<![\\w.~$}-])(${places.map((place) => place.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|")})(?![\\w-])`,
  );
  const found = tracked.filter((name) => isText(name) && pattern.test(readFileSync(inRoot(name), "utf8")));
  expect(found).toEqual([]);
});

function isText(name: string): boolean {
  return !/\.(png|jpg|gguf|safetensors|bin|node|vsix)$/.test(name);
}
