/** Words on the command line → what to do. Pure. */

import * as path from "node:path";
import { parseArgs } from "node:util";
import { defaultSettings, parseSettings } from "../config";
import { EngineError } from "../errors";
import type { EngineSettings } from "../protocol";

export const usage = `Usage:
  nosa index    [--repo DIR] [--model M] [--context-max N] [--exclude GLOB]... [--json]
  nosa ask      [--repo DIR] [--model M] [--context-max N] [--tokens-max N] [--temperature T] [--seed N] [--why] [--json] "question"
  nosa complete [--repo DIR] [--model M] [--context-max N] [--tokens-max N] [--json] FILE:LINE:COLUMN
  nosa tokens   --model PATH --ids FILE --steps N [--top K] [--precision f32] [--teacher FILE]
  nosa models   [fetch [ID]] [--json]
  nosa forget   [--repo DIR]

  --repo DIR       the repository; the current folder unless told
  --model M        id of a known model, or the path of a GGUF file or of a folder with safetensors
  --tokens-max N   most tokens of the answer
  --context-max N  most tokens of the repository that are read
  --memory GB      memory for what was read, the model not counted; a share of the machine's unless told
  --disk GB        disk for what was read
  --why            say which lines the answer drew on, and how much of its attention each received
  --json           one JSON line on stdout instead of text
`;

export interface TerminalOptions {
  readonly command: "index" | "ask" | "complete" | "models" | "forget";
  readonly words: readonly string[];
  /** Absolute. */
  readonly repo: string;
  readonly settings: EngineSettings;
  readonly answerTokensMax: number;
  readonly temperature: number;
  readonly seed: number;
  /** Explain the answer by what it attended to. */
  readonly why: boolean;
  readonly json: boolean;
}

const answerTokensMaxDefault = 512;

/** Throws EngineError `badRequest` with a sentence for the user. */
export function parseOptions(command: string, words: readonly string[], cwd: string): TerminalOptions {
  const { values, positionals } = parsed(words);
  if (!isCommand(command)) throw new EngineError("badRequest", `There is no command "${command}".\n\n${usage}`);
  const count = (name: string, value: string | undefined, fallback: number): number => {
    if (value === undefined) return fallback;
    const result = Number(value);
    if (!Number.isInteger(result) || result < 1)
      throw new EngineError("badRequest", `${name} wants a whole number above 0, not "${value}".`);
    return result;
  };
  const answerTokensMax = count(
    "--tokens-max",
    values["tokens-max"],
    command === "complete" ? defaultSettings.completions.tokensMax : answerTokensMaxDefault,
  );
  const temperature = Number(values.temperature ?? "0");
  if (!(temperature >= 0))
    throw new EngineError("badRequest", `--temperature wants a number from 0 on, not "${String(values.temperature)}".`);
  return {
    command,
    words: positionals,
    repo: path.resolve(cwd, values.repo ?? "."),
    settings: parseSettings({
      ...defaultSettings,
      model: modelOf(values.model ?? "", cwd),
      exclude: values.exclude ?? [],
      contextTokensMax: count("--context-max", values["context-max"], defaultSettings.contextTokensMax),
      memoryGigabytes: gigabytes("--memory", values.memory),
      diskGigabytes: gigabytes("--disk", values.disk),
      completions: { ...defaultSettings.completions, tokensMax: answerTokensMax },
    }),
    answerTokensMax,
    temperature,
    seed: values.seed === undefined ? 0 : Number(values.seed) || 0,
    why: values.why ?? false,
    json: values.json ?? false,
  };
}

function gigabytes(name: string, value: string | undefined): number {
  const result = Number(value ?? "0");
  if (result >= 0 && value !== "") return result;
  throw new EngineError("badRequest", `${name} wants a number of gigabytes, not "${value ?? ""}".`);
}

function parsed(words: readonly string[]) {
  try {
    return parseArgs({
      args: [...words],
      allowPositionals: true,
      options: {
        repo: { type: "string" },
        model: { type: "string" },
        exclude: { type: "string", multiple: true },
        "tokens-max": { type: "string" },
        "context-max": { type: "string" },
        memory: { type: "string" },
        disk: { type: "string" },
        temperature: { type: "string" },
        seed: { type: "string" },
        why: { type: "boolean" },
        json: { type: "boolean" },
      },
    });
  } catch (error) {
    throw new EngineError("badRequest", `${error instanceof Error ? error.message : String(error)}\n\n${usage}`);
  }
}

function isCommand(command: string): command is TerminalOptions["command"] {
  return ["index", "ask", "complete", "models", "forget"].includes(command);
}

/** A path is made absolute here, as the engine works in another folder; an id stays as it is. */
function modelOf(model: string, cwd: string): string {
  const looksLikePath = model.includes("/") || model.includes("\\") || model.endsWith(".gguf");
  return looksLikePath ? path.resolve(cwd, model) : model;
}

/** FILE:LINE:COLUMN, both from 1. */
export function parsePlace(place: string): { readonly file: string; readonly line: number; readonly column: number } {
  const match = /^(.+):(\d+):(\d+)$/.exec(place);
  const [, file, line, column] = match ?? [];
  if (file === undefined || Number(line) < 1 || Number(column) < 1) {
    throw new EngineError(
      "badRequest",
      `Say where to complete as FILE:LINE:COLUMN, both counted from 1, not "${place}".`,
    );
  }
  return { file, line: Number(line), column: Number(column) };
}
