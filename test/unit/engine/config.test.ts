import { describe, expect, it } from "vitest";
import { defaultSettings, limits, parseHello, parseSettings, processConfig } from "../../../engine/config";
import { protocolVersion } from "../../../engine/protocol";

describe("parseSettings", () => {
  it("gives the defaults for anything that is no settings object", () => {
    for (const value of [undefined, null, 7, "x", []]) expect(parseSettings(value)).toEqual(defaultSettings);
  });

  it("keeps good values and replaces bad ones, one by one", () => {
    const settings = parseSettings({
      model: "m",
      threads: "many",
      exclude: [1],
      contextTokensMax: 5_000,
      completions: { enabled: false },
    });
    expect(settings).toMatchObject({ model: "m", threads: 0, exclude: [], contextTokensMax: 5_000 });
    expect(settings.completions).toEqual({ ...defaultSettings.completions, enabled: false });
  });

  it("brings numbers into range", () => {
    const settings = parseSettings({
      threads: -3,
      contextTokensMax: 1e12,
      fileKilobytesMax: 0,
      completions: { tokensMax: 1e9 },
    });
    expect(settings.threads).toBe(0);
    expect(settings.contextTokensMax).toBe(limits.contextTokensMax);
    expect(settings.fileKilobytesMax).toBe(1);
    expect(settings.completions.tokensMax).toBe(limits.completionTokensMax);
  });

  it("is frozen", () => {
    expect(Object.isFrozen(parseSettings({ model: "m" }))).toBe(true);
  });
});

describe("parseHello", () => {
  const hello = { protocolVersion, token: "t", client: "test", settings: {} };

  it("takes a client of this version", () => {
    expect(parseHello(hello)).toEqual({ ...hello, settings: defaultSettings });
  });

  it("refuses another version by kind, whatever else it says", () => {
    expect(() => parseHello({ protocolVersion: protocolVersion + 1 })).toThrowError(
      expect.objectContaining({ kind: "versionMismatch" }),
    );
  });

  it("refuses who does not introduce himself", () => {
    for (const value of [undefined, null, {}, { ...hello, client: "browser" }, { ...hello, token: 5 }]) {
      expect(() => parseHello(value)).toThrowError(expect.objectContaining({ kind: "badRequest" }));
    }
  });
});

describe("processConfig", () => {
  it("keeps everything in the folder that NOSA_HOME names, but models where NOSA_MODELS_HOME says", () => {
    const { paths } = processConfig({ NOSA_HOME: "/tmp/n", NOSA_MODELS_HOME: "/tmp/m" });
    expect(paths.folder).toBe("/tmp/n");
    expect(paths.models).toBe("/tmp/m");
    for (const file of [paths.lock, paths.socket, paths.logs, paths.contexts])
      expect(file.startsWith("/tmp/n/")).toBe(true);
  });

  it("stays five minutes unless told otherwise", () => {
    expect(processConfig({}).idleExitMs).toBe(300_000);
    expect(processConfig({ NOSA_IDLE_EXIT_MS: "50" }).idleExitMs).toBe(50);
    expect(processConfig({ NOSA_IDLE_EXIT_MS: "soon" }).idleExitMs).toBe(300_000);
  });
});
