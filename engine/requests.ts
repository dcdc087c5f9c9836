/** Params of our own requests, parsed at the edge. What a schema does not name is dropped. */

import * as z from "zod/mini";
import { limits } from "./config";
import { EngineError } from "./errors";

const text = (charactersMax: number) => z.string().check(z.maxLength(charactersMax));

const rootParams = z.object({ root: text(32_768) });

const line = z.int().check(z.minimum(0), z.maximum(1e9));
const places = z
  .array(z.object({ path: text(4_096), startLine: line, endLine: line }))
  .check(z.maxLength(limits.placesMax));

export const schemas = {
  nothing: z.unknown(),
  root: rootParams,
  index: z.extend(rootParams, {
    editorExcludes: z.catch(z.record(z.string(), z.boolean()), {}),
    reread: z.optional(z.array(text(4_096)).check(z.maxLength(limits.placesMax))),
  }),
  pins: z.extend(rootParams, { pins: places }),
  prepare: z.object({ uri: text(32_768), line, character: line }),
  chat: z.extend(rootParams, {
    messages: z
      .array(z.object({ role: z.enum(["system", "user", "assistant"]), content: text(limits.chatCharactersMax) }))
      .check(z.minLength(1), z.maxLength(limits.chatMessagesMax)),
    pins: z.optional(places),
    scope: z.optional(places),
    tokensMax: z.int().check(z.minimum(1), z.maximum(limits.answerTokensMax)),
    temperature: z.number().check(z.minimum(0), z.maximum(10)),
    seed: z.int().check(z.minimum(0), z.maximum(Number.MAX_SAFE_INTEGER)),
    why: z.optional(z.boolean()),
    tools: z.optional(
      z.object({
        open: text(limits.toolMarkCharactersMax).check(z.minLength(1)),
        close: text(limits.toolMarkCharactersMax).check(z.minLength(1)),
        required: z.boolean(),
        functions: z
          .array(z.object({ name: text(limits.toolMarkCharactersMax), schema: z.unknown() }))
          .check(z.minLength(1), z.maxLength(limits.toolsMax)),
      }),
    ),
    partialResultToken: z.optional(z.union([z.string(), z.number()])),
  }),
  download: z.object({ model: text(4_096) }),
} as const;

/** The params as the schema says, or EngineError `badRequest` which names what is wrong. */
export function parseParams<S extends z.ZodMiniType>(schema: S, method: string, params: unknown): z.output<S> {
  const parsed = schema.safeParse(params);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const where = issue === undefined ? "" : ` at "${issue.path.join(".")}" (${issue.message})`;
  throw new EngineError(
    "badRequest",
    `${method} was asked with something it does not understand${where}: update Nosa.`,
  );
}
