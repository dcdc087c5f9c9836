/**
 * What every block of a context receives in answers that have nothing to do with it: the measure that attention to a
 * block is compared with (references.ts).
 *
 * The answers are given, not drawn, so that the same context always has the same measure.
 */

import type { Tail } from "../contexts/tails";
import type { BlockMass } from "../native/addon";
import type { Job, Scheduler } from "../scheduler/scheduler";
import { MassSum } from "./masses";

/** A chat with a question and the beginning of its answer, as tokens. */
export interface NeutralChat {
  readonly prompt: Uint32Array;
  readonly answer: Uint32Array;
}

export const neutralQuestions: readonly { readonly question: string; readonly answer: string }[] = [
  { question: "Hello! How are you today?", answer: "Hello! I am doing well, thank you for asking." },
  { question: "What is the capital of France?", answer: "The capital of France is Paris, on the river Seine." },
  { question: "Which day comes after Monday?", answer: "The day that comes after Monday is Tuesday." },
];

const greedy = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };

/** Where tails come from. None is given back to be kept: what is kept for the next turn of a chat must not make way for this. */
export interface TailSource {
  take(prompt: Uint32Array): Promise<Tail>;
  drop(tail: Tail): void;
}

export interface NeutralMasses {
  /** What was attended to. */
  readonly attends: string;
  readonly masses: readonly BlockMass[];
}

/** Average over the chats, each counting the same. What is attended to must stay the same meanwhile, else the last of it counts. */
export async function measureNeutral(
  scheduler: Scheduler,
  job: Job,
  tails: TailSource,
  chats: readonly NeutralChat[],
): Promise<NeutralMasses> {
  let sum = new MassSum();
  let attends = "";
  for (const { prompt, answer } of chats) {
    const tail = await tails.take(prompt);
    if (tail.attends !== attends) sum = new MassSum();
    attends = tail.attends;
    try {
      await scheduler.run(job, () => tail.sequence.setTokens(prompt));
      for (let done = 0; done < answer.length;) {
        const teacher = answer.subarray(done);
        const result = await scheduler.run(job, () =>
          tail.sequence.decode({ steps: teacher.length, sampling: greedy, stopIds: [], teacher, masses: true }),
        );
        sum.add(result.masses, result.steps.length / answer.length);
        done += result.steps.length;
        if (result.steps.length === 0 && !result.interrupted) break;
      }
    } finally {
      tails.drop(tail);
    }
  }
  return { attends, masses: sum.average() };
}
