/** Every word that a person reads can be said in another language, and is said in German. */
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";

const sources = readdirSync("extension", { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".ts"))
  .map((name) => ({ name, text: readFileSync(path.join("extension", name), "utf8") }));
const bundle = JSON.parse(readFileSync("l10n/bundle.l10n.de.json", "utf8")) as Record<string, string>;
const used = new Set(
  sources.flatMap(({ text }) =>
    [...text.matchAll(/l10n\.t\(\s*("(?:[^"\\]|\\.)*")/g)].map((match) => JSON.parse(match[1] ?? '""') as string),
  ),
);
const holes = (text: string): readonly string[] => (text.match(/\{\d\}/g) ?? []).toSorted();

describe("the words of the extension", () => {
  it("are all in the German bundle, and nothing else is", () => {
    expect(Object.keys(bundle).toSorted()).toEqual([...used].toSorted());
    expect(used.size).toBeGreaterThan(150);
  });

  it("keep their holes in German, and are not left in English", () => {
    for (const [english, german] of Object.entries(bundle))
      expect([english, holes(german)]).toEqual([english, holes(english)]);
    const same = Object.entries(bundle).filter(([english, german]) => english === german && /[a-z]{4}/.test(english));
    // Words that are the same in both languages.
    expect(same.map(([english]) => english).filter((text) => !/^(Version|Code|Chat)\b|^version/i.test(text))).toEqual(
      [],
    );
  });

  it("are looked up by a literal each, so that a program can find them", () => {
    for (const { name, text } of sources) expect([name, /l10n\.t\(\s*[^"\s]/.test(text)]).toEqual([name, false]);
  });

  it("reach the editor's messages and pickers through the bundle alone", () => {
    const raw =
      /\b(?:show(?:Information|Warning|Error)Message|setStatusBarMessage)\(\s*["`]|(?:placeHolder|placeholder|title|prompt|openLabel|tooltip): ["`](?=[^"`$]*[A-Za-z]{3})/;
    const found = sources.flatMap(({ name, text }) =>
      text.split("\n").flatMap((line) => (raw.test(line) ? [`${name}: ${line.trim()}`] : [])),
    );
    // The name of the product is the same in every language.
    expect(found.filter((line) => !line.endsWith('title: "Nosa",'))).toEqual([]);
  });

  it("come to the webviews with their page: those have no sentence of their own", () => {
    const pages = readdirSync("media", { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".ts"));
    const found = pages.flatMap((name) => {
      const code = readFileSync(path.join("media", name), "utf8").replaceAll(/\/\*[^]*?\*\/|\/\/.*$/gm, "");
      return [...code.matchAll(/["`]([A-Z][a-z]+(?: [a-z]+)+[^"`\n]*)["`]/g)].map(([, text]) => `${name}: ${text}`);
    });
    expect(found).toEqual([]);
    expect(pages.length).toBeGreaterThan(8);
  });

  it("of the manifest are all there in German", () => {
    const english = JSON.parse(readFileSync("package.nls.json", "utf8")) as Record<string, string>;
    const german = JSON.parse(readFileSync("package.nls.de.json", "utf8")) as Record<string, string>;
    expect(Object.keys(german).toSorted()).toEqual(Object.keys(english).toSorted());
    const commandsIn = (text: string): readonly string[] =>
      [...text.matchAll(/\(command:([\w.]+)\)/g)].map((match) => match[1] ?? "");
    for (const [key, text] of Object.entries(english))
      expect([key, commandsIn(german[key] ?? "")]).toEqual([key, commandsIn(text)]);
  });
});
