import { describe, expect, it } from "vitest";
import { generate, type Generated } from "../../../../engine/generation/generate";
import { Scheduler, type Job, type JobKind } from "../../../../engine/scheduler/scheduler";
import type { DecodeTask, NativeSequence } from "../../../../engine/native/addon";
import { bytesToTokens, CopyModel, cueEnd, cueStart, stopId, tokenToByte, Workshop } from "../../../support/copyModel";

const lines = Array.from({ length: 6 }, (_, line) => `line ${line} says ${"abcdef".repeat(4)}${line}`);

/** Tells how many went together. */
class WatchedModel extends CopyModel {
  readonly together: number[] = [];

  override decodeTogether(options: { readonly tasks: readonly DecodeTask[] }): ReturnType<CopyModel["decodeTogether"]> {
    this.together.push(options.tasks.length);
    return super.decodeTogether(options);
  }
}

async function setUp(stepSequences: number) {
  const workshop = new Workshop();
  const model = new WatchedModel(workshop, { stepSequences });
  const scheduler = new Scheduler(model, { waitingMax: 100, stepSequences: () => model.info.stepSequences });
  const segment = await scheduler.upkeep((native) => native.createSequence({ basePosition: 0, attends: [] }));
  await segment.setTokens(bytesToTokens(lines.join("\n")));
  await segment.prefill({ tokensMax: 10_000 });
  const answer = async (line: number, kind: JobKind, onText: () => void = () => undefined): Promise<Generated> => {
    const sequence: NativeSequence = await scheduler.upkeep((native) =>
      native.createSequence({ basePosition: 1_000, attends: [segment] }),
    );
    const controller = new AbortController();
    const job: Job = { kind, signal: controller.signal };
    return generate({
      scheduler,
      job,
      sequence,
      tokens: Uint32Array.of(cueStart, ...bytesToTokens(`line ${line} `), cueEnd),
      tokensMax: 100,
      sampling: { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 },
      stopIds: [stopId],
      bannedIds: [],
      stopStrings: [],
      stream: { push: (token) => String.fromCharCode(tokenToByte(token) ?? 0), end: () => "" },
      masses: kind === "chat",
      onText: () => {
        onText();
        if (line === 5) controller.abort();
      },
    });
  };
  return { model, workshop, scheduler, answer };
}

describe("Answers that are written at the same time", () => {
  it("say what each says alone, whether they share steps or take turns", async () => {
    for (const stepSequences of [1, 3, 8]) {
      const { model, workshop, scheduler, answer } = await setUp(stepSequences);
      const kinds = ["chat", "chat", "ahead", "completion", "chat"] as const;
      const answers = await Promise.all(kinds.map((kind, line) => answer(line, kind)));
      expect(answers.map(({ text, finish }) => `${finish}: ${text}`)).toEqual(
        kinds.map((_, line) => `stop: ${lines[line]?.slice("line 0 ".length)}`),
      );
      expect(workshop.overlaps).toBe(0);
      expect(Math.max(0, ...model.together)).toBeLessThanOrEqual(stepSequences);
      expect(model.together.length > 0).toBe(stepSequences > 1);
      scheduler.checkIntegrity();
      await scheduler.dispose();
    }
  });

  it("do not notice when one of them is cancelled", async () => {
    const { model, scheduler, answer } = await setUp(8);
    const [kept, cancelled, other] = await Promise.all([answer(1, "chat"), answer(5, "chat"), answer(2, "chat")]);
    expect(cancelled.finish).toBe("cancelled");
    expect(kept.text).toBe(lines[1]?.slice("line 0 ".length));
    expect(other.text).toBe(lines[2]?.slice("line 0 ".length));
    expect(model.together.length).toBeGreaterThan(0);
    await scheduler.dispose();
  });
});
