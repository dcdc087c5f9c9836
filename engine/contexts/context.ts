/**
 * What a repository's context is made of, and under which keys its KV may be used again. Plain values.
 *
 * KV of a segment depends on the model, the header and the segment's own tokens, and on how it was computed. All of
 * that goes into the key; if anything differs, nothing is reused.
 */

import { createHash } from "node:crypto";
import * as z from "zod/mini";
import type { LeftOutReason } from "../protocol";
import type { SegmentPlan } from "../repository/segments";

/** Raised whenever the arrangement of header, segments and tail, or anything else that KV depends on, changes here. */
export const layoutVersion = 1;

/** Raised whenever the file format of the record changes; older ones are set aside and rebuilt. */
export const recordVersion = 1;

/** Everything that KV depends on beside its own tokens. */
export interface Identity {
  /** ModelInfo.fingerprint: weights, adapter, KV type, RoPE and native KV layout. */
  readonly fingerprint: string;
  readonly headerTokens: Uint32Array;
  /** S: how many positions are set apart for segments. */
  readonly segmentPositions: number;
  /** How segments are prefilled. */
  readonly policy: "full";
}

/** SHA-256 over every part, hex. `contentKey` is the segment's own; the header's is "". */
export function segmentKey(identity: Identity, contentKey: string): string {
  const hash = createHash("sha256");
  const { fingerprint, segmentPositions, policy, headerTokens } = identity;
  hash.update(JSON.stringify([layoutVersion, fingerprint, segmentPositions, policy, contentKey, headerTokens.length]));
  hash.update(Buffer.from(headerTokens.buffer, headerTokens.byteOffset, headerTokens.byteLength));
  return hash.digest("hex");
}

/** Of a tail's own KV, which depends on everything it attends to and on how. `attends`: keys of segments, in order. */
export function tailKey(
  identity: Identity,
  attends: readonly string[],
  selection: string,
  tokens: Uint32Array,
): string {
  const hash = createHash("sha256");
  hash.update(JSON.stringify([attends, selection]));
  hash.update(Buffer.from(tokens.buffer, tokens.byteOffset, tokens.byteLength));
  return segmentKey(identity, `tail ${hash.digest("hex")}`);
}

const count = z.number().check(z.int(), z.minimum(0));
const leftOutReasons = [
  "ignored",
  "excluded",
  "tooLarge",
  "binary",
  "secret",
  "generated",
  "unreadable",
  "link",
  "budget",
] as const satisfies readonly LeftOutReason[];

const recordSchema = z.object({
  version: z.literal(recordVersion),
  root: z.string(),
  name: z.string(),
  /** Id of the model, for people; the fingerprint decides. */
  model: z.string(),
  /** What was asked for when it was read: a refresh reads the same. */
  options: z.object({
    editorExcludes: z.record(z.string(), z.boolean()),
    exclude: z.array(z.string()),
    fileKilobytesMax: count,
    contextTokensMax: count,
  }),
  fingerprint: z.string(),
  segmentPositions: count,
  header: z.object({ key: z.string(), tokens: count }),
  segments: z.array(
    z.object({
      key: z.string(),
      tokens: count,
      files: z.array(z.string()),
      blockLines: z.array(z.array(z.object({ path: z.string(), startLine: count, endLine: count }))),
    }),
  ),
  /** Keys of saved tails behind exactly these segments: what every chat begins with. */
  tails: z.array(z.string()),
  files: z.array(z.object({ path: z.string(), tokens: count, bytes: count, mtimeMs: z.number(), hash: z.string() })),
  leftOut: z.array(z.object({ path: z.string(), reason: z.enum(leftOutReasons) })),
});

/** The description of one repository under one model, as it is kept on disk. */
export type ContextRecord = z.infer<typeof recordSchema>;
export type SegmentRecord = ContextRecord["segments"][number];
export type FileRecord = ContextRecord["files"][number];

/** Undefined for anything that is not a record of this version. */
export function parseRecord(value: unknown): ContextRecord | undefined {
  const parsed = recordSchema.safeParse(value);
  return parsed.success ? parsed.data : undefined;
}

export function segmentRecord(identity: Identity, plan: SegmentPlan): SegmentRecord {
  return {
    key: segmentKey(identity, plan.contentKey),
    tokens: plan.tokens.length,
    files: [...new Set(plan.files.map(({ path }) => path))],
    blockLines: plan.blockLines.map((spans) => [...spans]),
  };
}

export function tokensOf(record: ContextRecord): number {
  return record.segments.reduce((total, { tokens }) => total + tokens, 0);
}
