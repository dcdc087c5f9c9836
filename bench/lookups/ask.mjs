// Asks questions over one context: what is generated, and how likely the right answer was.
import { finish, greedy } from "../lib/context.mjs";

/** What is generated beyond the length of the right answer, so that one that goes on where it should end is seen. */
const spareSteps = 4;
const chatTokensMax = 12_288;

/**
 * Asks `questions` ([{question, start, answer, before?, selection?}]) over `context`; each is a fork of one tail that holds what all of them begin with.
 * A question's own selection goes before that of all.
 */
export class Asker {
  #model;
  #base;
  #prompts;
  #stopIds;

  constructor(model, base, { prompts, stopIds }) {
    this.#model = model;
    this.#base = base;
    this.#prompts = prompts;
    this.#stopIds = stopIds;
  }

  /** `selection` is for NativeSequence.select; undefined for all blocks. */
  static async open(context, questions, { selection } = {}) {
    const { model } = context;
    const { sequence, before } = await context.tail();
    if (selection !== undefined) await sequence.select(selection);
    const prompts = [];
    for (const each of questions) prompts.push(await promptOf(model, each, before));
    return Asker.#behind(model, sequence, { prompts, stopIds: model.text.answerStopIds });
  }

  /** The same for prompts that are tokens already: [{tokens, right, answer}], what is to be drawn as tokens and as text. `stopIds` end it. */
  static async openPrompts(context, prompts, { selection, stopIds = context.model.text.answerStopIds } = {}) {
    const { sequence, before } = await context.tail();
    if (selection !== undefined) await sequence.select(selection);
    const whole = prompts.map((each) => ({ ...each, tokens: Uint32Array.from([...before, ...each.tokens]) }));
    return Asker.#behind(context.model, sequence, { prompts: whole, stopIds });
  }

  static async #behind(model, sequence, { prompts, stopIds }) {
    const shared = sharedPrefix(prompts.map(({ tokens }) => tokens));
    if (shared > 0) {
      await sequence.setTokens(prompts[0].tokens.slice(0, shared));
      await finish(sequence);
    }
    return new Asker(model, sequence, { prompts, stopIds });
  }

  /**
   * Asks question `index`: `{text, exact, nll, tokens, masses}`. The generated text, whether it begins with the right words, nats a token of the right
   * answer when it is forced, its tokens, and the attention masses of the generated answer. `selection` replaces that of all.
   */
  async ask(index, { selection, masses = false } = {}) {
    const model = this.#model;
    const { tokens, right, answer, selection: own } = this.#prompts[index];
    const sequence = await this.#base.fork();
    if ((selection ?? own) !== undefined) await sequence.select(selection ?? own);
    await sequence.setTokens(tokens);
    const steps = right.length + spareSteps;
    const drawn = await sequence.decode({ steps, sampling: greedy, stopIds: this.#stopIds, masses });
    const text = model.decode(drawn.steps.map(({ token }) => token));
    await sequence.setTokens(Uint32Array.from([...tokens, ...right]));
    const { logprobs } = await sequence.score({ from: tokens.length });
    await sequence.dispose();
    const nll = -logprobs.reduce((sum, each) => sum + each, 0) / right.length;
    const exact = text.startsWith(answer) && !/^\w/.test(text.slice(answer.length));
    return { text, exact, nll, tokens: right.length, masses: drawn.masses };
  }

  async dispose() {
    await this.#base.dispose();
  }
}

async function promptOf(model, { question, start, answer, before = [], selection }, contextTokens) {
  const chat = await model.text.chat({ messages: [{ role: "user", content: question }], tokensMax: chatTokensMax });
  const [lead, right] = [await model.encode(start), await model.encode(answer)];
  return { tokens: Uint32Array.from([...contextTokens, ...before, ...chat.tokens, ...lead]), right, answer, selection };
}

/** Length of what all begin with; at least one token of each is not counted. */
function sharedPrefix([first, ...rest]) {
  let length = first.length - 1;
  for (const other of rest) {
    let at = 0;
    while (at < length && at < other.length - 1 && first[at] === other[at]) at += 1;
    length = at;
  }
  return length;
}
