import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { settingsFrom } from "../../../extension/settings";

interface Property {
  readonly default: unknown;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly markdownDescription: string;
}
const manifest: { contributes: { configuration: { properties: Record<string, Property> } } } = JSON.parse(
  readFileSync("package.json", "utf8"),
);
const { properties } = manifest.contributes.configuration;
const names = Object.keys(properties).map((name) => name.replace(/^nosa\./, ""));
const defaultOf = (name: string): unknown => properties[`nosa.${name}`]?.default;

/** Every leaf of the settings, as "completions.enabled". */
function leaves(value: object, prefix = ""): string[] {
  return Object.entries(value).flatMap(([name, inside]) =>
    typeof inside === "object" && inside !== null && !Array.isArray(inside) && name !== "languages"
      ? leaves(inside, `${prefix}${name}.`)
      : [`${prefix}${name}`],
  );
}

describe("settings", () => {
  it("are the ones the manifest lists, no more and no less", () => {
    expect(leaves(settingsFrom(defaultOf)).toSorted()).toEqual(names.toSorted());
  });

  it("fall back to the manifest's defaults when nothing is set", () => {
    expect(settingsFrom(() => undefined)).toEqual(settingsFrom(defaultOf));
  });

  it("bring numbers into the manifest's limits", () => {
    for (const [name, property] of Object.entries(properties)) {
      if (property.minimum === undefined || property.maximum === undefined) continue;
      const short = name.replace(/^nosa\./, "");
      const read = (value: number): unknown => {
        const settings = settingsFrom((asked) => (asked === short ? value : undefined));
        const flat = { ...settings, "completions.tokensMax": settings.completions.tokensMax };
        return Object.entries(flat).find(([key]) => key === short)?.[1];
      };
      expect(read(property.minimum - 1), name).toBe(property.minimum);
      expect(read(property.maximum + 1), name).toBe(property.maximum);
      expect(read(Number.NaN), name).toBe(property.default);
    }
  });

  it("drop what is of the wrong type", () => {
    const wrong: Record<string, unknown> = {
      model: 7,
      exclude: ["**/*.snap", 3, ""],
      "completions.enabled": "yes",
      "completions.languages": { "*": false, go: true, rust: "on" },
      hubMirror: null,
    };
    expect(settingsFrom((name) => wrong[name])).toMatchObject({
      model: "",
      exclude: ["**/*.snap"],
      completions: { enabled: true, automatic: true, languages: { "*": false, go: true } },
      hubMirror: "",
    });
  });

  it("have a description each, in the strings file", () => {
    const strings: Record<string, string> = JSON.parse(readFileSync("package.nls.json", "utf8"));
    for (const [name, property] of Object.entries(properties)) {
      const key = /^%(.+)%$/.exec(property.markdownDescription)?.[1] ?? "";
      expect(strings[key], name).toMatch(/\w+/);
    }
  });
});
