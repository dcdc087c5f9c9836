import { existsSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { slashNames } from "../../../extension/asking/slash";
import { repoToolName } from "../../../extension/repoTool";

interface Manifest {
  readonly icon: string;
  readonly contributes: {
    readonly commands: readonly { readonly command: string }[];
    readonly chatParticipants: readonly { readonly commands: readonly { readonly name: string }[] }[];
    readonly languageModelTools: readonly { readonly name: string; readonly when: string }[];
    readonly walkthroughs: readonly { readonly steps: readonly { readonly media: { readonly image: string } }[] }[];
    readonly configuration: { readonly properties: Readonly<Record<string, { readonly default?: unknown }>> };
    readonly views: Readonly<Record<string, readonly { readonly id: string }[]>>;
    readonly viewsContainers: { readonly activitybar: readonly { readonly icon: string }[] };
  };
}
const text = readFileSync("package.json", "utf8");
const manifest: Manifest = JSON.parse(text);
const strings: Record<string, string> = JSON.parse(readFileSync("package.nls.json", "utf8"));
const code = readFileSync("extension/extension.ts", "utf8");

describe("the manifest", () => {
  it("lists exactly the commands that are registered, beside those only buttons call", () => {
    const registered = [...code.matchAll(/"(nosa\.\w+)": \((?:what)?\) =>/g)].map((match) => match[1]);
    const onlyByButton = ["nosa.openSettings", "nosa.completionAccepted"];
    const listed = manifest.contributes.commands.map(({ command }) => command);
    expect([...listed, ...onlyByButton].toSorted()).toEqual(registered.toSorted());
  });

  it("uses every string of the strings file, and no other", () => {
    const used = new Set([...text.matchAll(/"%([^"%]+)%"/g)].map((match) => match[1]));
    expect([...used].toSorted()).toEqual(Object.keys(strings).toSorted());
  });

  it("names pictures that are there, and a raster icon of at least 128 pixels", () => {
    const pictures = manifest.contributes.walkthroughs.flatMap(({ steps }) => steps.map(({ media }) => media.image));
    const icons = manifest.contributes.viewsContainers.activitybar.map(({ icon }) => icon);
    for (const file of [...pictures, ...icons, manifest.icon]) expect(existsSync(file), file).toBe(true);
    const png = readFileSync(manifest.icon);
    expect(png.subarray(1, 4).toString("latin1")).toBe("PNG");
    expect(png.readUInt32BE(16)).toBeGreaterThanOrEqual(128);
  });

  it("offers the slash commands of our own view in the editor's chat too, and no other", () => {
    const [participant] = manifest.contributes.chatParticipants;
    expect(participant?.commands.map(({ name }) => name)).toEqual(slashNames);
  });

  it("names the tool that is registered, which asks for a question and is for trusted workspaces", () => {
    const [tool] = manifest.contributes.languageModelTools;
    expect(tool).toMatchObject({
      name: repoToolName,
      toolReferenceName: "repo",
      inputSchema: { required: ["question"] },
    });
    expect(tool?.when).toContain("isWorkspaceTrusted");
  });

  it("asks for one model, and for nothing before a first answer", () => {
    const { properties } = manifest.contributes.configuration;
    const models = Object.entries(properties).filter(
      ([name, { default: value }]) => /model/i.test(name) || value === null,
    );
    expect(models).toEqual([["nosa.model", expect.objectContaining({ default: "" })]]);
    for (const [name, setting] of Object.entries(properties)) expect(setting, name).toHaveProperty("default");
  });

  it("links in texts only to commands there are", () => {
    const known = new Set(manifest.contributes.commands.map(({ command }) => command));
    for (const [, command = ""] of Object.values(strings)
      .join("\n")
      .matchAll(/\(command:([\w.]+)\)/g)) {
      expect(known.has(command) || command.startsWith("workbench."), command).toBe(true);
    }
  });
});
