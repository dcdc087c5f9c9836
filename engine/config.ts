/**
 * Unknown values in, frozen values out: the settings a client sends, and what the process was started with.
 *
 * A setting out of range is brought into range rather than refused, so that a slip in a settings file never stops work.
 */

import * as z from "zod/mini";
import { EngineError } from "./errors";
import { dataFolder, dataPaths, type DataPaths } from "./paths";
import { protocolVersion, type ClientHello, type EngineSettings } from "./protocol";

/** Every maximum of the engine that is not the user's to choose. What happens at each is said where it is used. */
export const limits = Object.freeze({
  clientsMax: 64,
  requestsWaitingMax: 256,
  openDocumentsMax: 2_000,
  documentCharactersMax: 20_000_000,
  chatTailsMax: 8,
  completionTailsMax: 4,
  completionCacheEntriesMax: 128,
  contextsLoadedMax: 3,
  referencesMax: 5,
  attentionMax: 400,
  chatMessagesMax: 400,
  chatCharactersMax: 2_000_000,
  placesMax: 1_000,
  answerTokensMax: 8_192,
  toolsMax: 512,
  toolMarkCharactersMax: 256,
  completionTokensMax: 256,
  completionCharactersBeforeMax: 6_000,
  completionCharactersAfterMax: 1_500,
  statusPerSecondMax: 10,
  progressPerSecondMax: 10,
  streamFrameMs: 25,
  refreshIdleMs: 2_000,
  manifestBytesMax: 64 * 1024 * 1024,
  threadsMax: 256,
  contextTokensMax: 4_194_304,
  gigabytesMax: 1_024,
  fileKilobytesMax: 1_048_576,
});

/** Less than this holds no step of any model. */
const gigabytesMin = 0.05;

export const defaultSettings: EngineSettings = Object.freeze({
  model: "",
  threads: 0,
  exclude: [],
  fileKilobytesMax: 512,
  contextTokensMax: 1_048_576,
  memoryGigabytes: 0,
  diskGigabytes: 0,
  completions: Object.freeze({ enabled: true, automatic: true, languages: { "*": true }, tokensMax: 64 }),
  hubMirror: "",
});

export interface ProcessConfig {
  readonly paths: DataPaths;
  /** How long the engine stays after its last client left. */
  readonly idleExitMs: number;
}

const idleExitMsDefault = 5 * 60 * 1000;

export function processConfig(env: NodeJS.ProcessEnv): ProcessConfig {
  const idle = Number(env["NOSA_IDLE_EXIT_MS"] ?? "");
  const paths = dataPaths(dataFolder(env));
  return Object.freeze({
    paths: { ...paths, models: env["NOSA_MODELS_HOME"] ?? paths.models },
    idleExitMs: env["NOSA_IDLE_EXIT_MS"] !== undefined && Number.isFinite(idle) && idle >= 0 ? idle : idleExitMsDefault,
  });
}

const number = (fallback: number, low: number, high: number) =>
  z.pipe(
    z.catch(z.number(), fallback),
    z.transform((value) => Math.round(Math.min(high, Math.max(low, value)))),
  );

/** 0 stays 0: it says that the engine chooses. */
const gigabytes = z.pipe(
  z.catch(z.number(), 0),
  z.transform((value) => (value > 0 ? Math.min(limits.gigabytesMax, Math.max(gigabytesMin, value)) : 0)),
);

const settingsSchema = z.object({
  model: z.catch(z.string(), defaultSettings.model),
  threads: number(defaultSettings.threads, 0, limits.threadsMax),
  exclude: z.catch(z.array(z.string()), []),
  fileKilobytesMax: number(defaultSettings.fileKilobytesMax, 1, limits.fileKilobytesMax),
  contextTokensMax: number(defaultSettings.contextTokensMax, 256, limits.contextTokensMax),
  memoryGigabytes: gigabytes,
  diskGigabytes: gigabytes,
  completions: z.catch(
    z.object({
      enabled: z.catch(z.boolean(), defaultSettings.completions.enabled),
      automatic: z.catch(z.boolean(), defaultSettings.completions.automatic),
      languages: z.catch(z.record(z.string(), z.boolean()), defaultSettings.completions.languages),
      tokensMax: number(defaultSettings.completions.tokensMax, 1, limits.completionTokensMax),
    }),
    defaultSettings.completions,
  ),
  hubMirror: z.catch(z.string(), defaultSettings.hubMirror),
});

export function parseSettings(value: unknown): EngineSettings {
  const parsed = settingsSchema.safeParse(value);
  return Object.freeze(parsed.success ? parsed.data : defaultSettings);
}

const helloSchema = z.object({
  protocolVersion: z.number(),
  token: z.string(),
  client: z.enum(["vscode", "terminal", "test"]),
  settings: z.unknown(),
});

/** The first words of a client. Refuses another protocol version by kind, anything malformed as `badRequest`. */
export function parseHello(value: unknown): ClientHello {
  const version = z.object({ protocolVersion: z.number() }).safeParse(value);
  if (version.success && version.data.protocolVersion !== protocolVersion) {
    throw new EngineError(
      "versionMismatch",
      `This engine speaks protocol ${protocolVersion} and the client ${version.data.protocolVersion}: ` +
        "reload every window so that all use the same version of Nosa.",
    );
  }
  const hello = helloSchema.safeParse(value);
  if (!hello.success) {
    throw new EngineError("badRequest", "The client did not introduce itself as Nosa's engine expects: update Nosa.");
  }
  return Object.freeze({ ...hello.data, settings: parseSettings(hello.data.settings) });
}
