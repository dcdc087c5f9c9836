/** What an answer drew on, in files and lines, measured against what answers to neutral questions draw on. */

import { limits } from "../config";
import type { RepositoryContext } from "../contexts/repositoryContext";
import { noFocus } from "../contexts/selection";
import type { Tail } from "../contexts/tails";
import { measureNeutral, neutralQuestions, type NeutralChat, type NeutralMasses } from "../generation/neutralAttention";
import { references } from "../generation/references";
import type { BlockMass } from "../native/addon";
import type { ChatResult } from "../protocol";
import type { Job } from "../scheduler/scheduler";
import type { Session } from "../sessions/session";

/** References name the few places that matter; a place with less than this of the best one's attention is noise. */
const shareOfBestMin = 0.1;

const promptTokensMax = 4_096;

/** Owns what was measured of each context; it goes when the context does. */
export class Attribution {
  readonly #measured = new WeakMap<RepositoryContext, NeutralMasses>();

  /** Measures the context as it is now, unless that was done. Some seconds of work, to be done once a context. */
  async prepare(session: Session, context: RepositoryContext, job: Job): Promise<void> {
    if (context.root === "" || context.loadedSegments.length === 0) return;
    if (this.#measured.get(context)?.attends === context.attends) return;
    const chats: NeutralChat[] = [];
    for (const { question, answer } of neutralQuestions) {
      const messages = [{ role: "user", content: question } as const];
      const { tokens } = await session.text.chat({ messages, tokensMax: promptTokensMax });
      chats.push({ prompt: tokens, answer: await session.text.plain(answer) });
    }
    const tails = {
      take: (prompt: Uint32Array) => context.tail(context.chatTails, prompt, noFocus),
      drop: (tail: Tail) => context.chatTails.drop(tail),
    };
    this.#measured.set(context, await measureNeutral(session.scheduler, job, tails, chats));
  }

  /** Without a measurement of what the tail attends to, blocks are compared with one another alone. */
  of(
    context: RepositoryContext,
    tail: Tail,
    masses: readonly BlockMass[],
  ): Required<Pick<ChatResult, "references" | "attention">> {
    const measured = this.#measured.get(context);
    const neutral = measured?.attends === tail.attends ? measured.masses : [];
    return {
      references: references(masses, tail.segments, { countMax: limits.referencesMax, neutral, shareOfBestMin }),
      attention: references(masses, tail.segments, { countMax: limits.attentionMax, neutral }),
    };
  }
}
