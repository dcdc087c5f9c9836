/** The words of the copying model: bytes, with marks where a real format has special tokens. */

import type { CompletionOrder } from "../../engine/native/addon";
import type { ModelText } from "../../engine/sessions/modelText";
import { bytesToTokens, cueEnd, cueStart, stopId, tokenToByte } from "./copyModel";

function joined(...parts: readonly (Uint32Array | readonly number[])[]): Uint32Array {
  return Uint32Array.from(parts.flatMap((part) => [...part]));
}

/** So many characters before the cursor are the cue of a completion. */
const completionCue = 12;

/** As a chat template's system turn: the same in front of every conversation. */
const chatBeginning = `system: ${"you copy what you have read. ".repeat(8)}\n`;

/** Marks write nothing, the other tokens a byte each. */
const firstByte = bytesToTokens("\0")[0] ?? 0;
const tokenBytes = {
  bytes: Uint8Array.from({ length: 256 }, (_, byte) => byte),
  offsets: Uint32Array.from({ length: firstByte + 257 }, (_, id) => Math.max(0, id - firstByte)),
};

export function copyText(completionOrder: CompletionOrder = "prefix-first"): ModelText {
  const newlines = new Uint8Array(259);
  const endsLine = new Uint8Array(259);
  newlines[10 + 3] = endsLine[10 + 3] = 1;
  return {
    lines: { newlines, endsLine },
    bannedIds: [],
    answerStopIds: [stopId],
    completionStopIds: [stopId],
    completionOrder,
    tokenBytes,
    header: async (repository) => bytesToTokens(`repository ${repository}\n`),
    file: async (path, text) => ({
      path,
      headerTokens: bytesToTokens(`file ${path}\n`),
      continuedHeaderTokens: bytesToTokens(`file ${path} goes on\n`),
      tokens: bytesToTokens(text.endsWith("\n") ? text : `${text}\n`),
    }),
    // The cue is the last message; the turns before it are there for the prefix to be kept.
    chat: async ({ messages }) => {
      const turns = messages.slice(0, -1).map(({ role, content }) => bytesToTokens(`${role}: ${content}\n`));
      const last = messages.at(-1)?.content ?? "";
      return {
        tokens: joined(bytesToTokens(chatBeginning), ...turns, [cueStart], bytesToTokens(last), [cueEnd]),
        dropped: 0,
        cut: false,
      };
    },
    completion: async ({ path, prefix, suffix }) => {
      const beginning = joined(
        bytesToTokens(`live ${path}\n`),
        bytesToTokens(completionOrder === "suffix-first" ? suffix : ""),
        bytesToTokens(prefix.slice(0, -completionCue)),
      );
      return {
        tokens: joined(beginning, [cueStart], bytesToTokens(prefix.slice(-completionCue)), [cueEnd]),
        stableTokens: beginning.length,
        linesBefore: prefix.split("\n").length - 1,
        linesAfter: suffix.split("\n").length - 1,
      };
    },
    plain: async (words) => bytesToTokens(words),
    decodeStream: () => {
      const decoder = new TextDecoder();
      return {
        push: (id) => {
          const byte = tokenToByte(id);
          return byte === undefined ? "" : decoder.decode(Uint8Array.of(byte), { stream: true });
        },
        end: () => decoder.decode(),
      };
    },
    dispose: async () => undefined,
  };
}
