import { ConfigurationTarget, workspace, type Disposable } from "vscode";
import type { EngineSettings } from "../engine/protocol";

/** The one reader of settings: what the user chose under `nosa.*`, with wrong values replaced by the default. */
export function readSettings(): EngineSettings {
  const section = workspace.getConfiguration("nosa");
  return settingsFrom((name) => section.get<unknown>(name));
}

export function onSettingsChanged(listener: (settings: EngineSettings) => void): Disposable {
  return workspace.onDidChangeConfiguration((event) => {
    if (event.affectsConfiguration("nosa")) listener(readSettings());
  });
}

/** Sets what stands under `nosa.name` where it was set last: in the workspace, else for the user. */
export async function changeSetting(name: string, value: unknown): Promise<void> {
  const section = workspace.getConfiguration("nosa");
  const inWorkspace = section.inspect(name)?.workspaceValue !== undefined;
  await section.update(name, value, inWorkspace ? ConfigurationTarget.Workspace : ConfigurationTarget.Global);
}

/** The defaults and limits are those of package.json; a test holds the two together. */
export function settingsFrom(get: (name: string) => unknown): EngineSettings {
  return {
    model: text(get("model")),
    threads: integer(get("threads"), 0, 0, 256),
    exclude: texts(get("exclude")),
    fileKilobytesMax: integer(get("fileKilobytesMax"), 512, 1, 16_384),
    contextTokensMax: integer(get("contextTokensMax"), 1_048_576, 1024, 4_194_304),
    memoryGigabytes: number(get("memoryGigabytes"), 0, 0, 1024),
    diskGigabytes: number(get("diskGigabytes"), 0, 0, 1024),
    completions: {
      enabled: get("completions.enabled") !== false,
      automatic: get("completions.automatic") !== false,
      languages: switches(get("completions.languages"), defaultLanguages),
      tokensMax: integer(get("completions.tokensMax"), 64, 8, 512),
    },
    hubMirror: text(get("hubMirror")),
  };
}

const defaultLanguages = { "*": true, plaintext: false, markdown: false, scminput: false } as const;

function text(value: unknown): string {
  return typeof value === "string" ? value.trim() : "";
}

function texts(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.filter((item): item is string => typeof item === "string" && item !== "") : [];
}

function integer(value: unknown, fallback: number, least: number, most: number): number {
  return Math.round(number(value, fallback, least, most));
}

function number(value: unknown, fallback: number, least: number, most: number): number {
  if (typeof value !== "number" || !Number.isFinite(value)) return fallback;
  return Math.min(most, Math.max(least, value));
}

function switches(value: unknown, fallback: Readonly<Record<string, boolean>>): Readonly<Record<string, boolean>> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return fallback;
  const on = Object.entries(value).filter((entry): entry is [string, boolean] => typeof entry[1] === "boolean");
  return Object.fromEntries(on);
}
