// Asks questions over one context: what is generated, and how likely the right answer was.
import { finish, greedy } from "../lib/context.mjs";

/** What is generated beyond the length of the right answer, so that one that goes on where it should end is seen. */
const spareSteps = 4;

/**
 * Asks every question ([{question, start, answer}]) over `context`, each in a fork of one tail. `selection` is for NativeSequence.select, or
 * undefined for all blocks. Gives for each `{text, exact, nll, tokens, masses}`: the generated text, whether it begins with the right words, nats a token of
 * the right answer when it is forced, its tokens, and the attention masses of the generated answer.
 */
export async function askAll(
  context,
  questions,
  { selection, masses = false, repository = true, onDone = () => undefined },
) {
  const { model } = context;
  const tail = await context.tail();
  if (selection !== undefined) await tail.sequence.select(selection);
  const prompts = [];
  for (const each of questions) prompts.push(await promptOf(model, each, tail.before, repository));
  const shared = sharedPrefix(prompts.map(({ tokens }) => tokens));
  await tail.sequence.setTokens(prompts[0].tokens.slice(0, Math.max(1, shared)));
  await finish(tail.sequence);
  const answers = [];
  for (const prompt of prompts) {
    answers.push(await askOne(model, tail.sequence, prompt, masses));
    onDone(answers.length);
  }
  await tail.sequence.dispose();
  return answers;
}

/** Tokens of a chat with one question and the beginning of its answer, behind `before`. */
export async function promptOf(model, { question, start, answer }, before, repository = true) {
  const chat = await model.text.chat({
    messages: [{ role: "user", content: question }],
    tokensMax: 12_288,
    repository,
  });
  const [lead, right] = [await model.encode(start), await model.encode(answer)];
  const tokens = Uint32Array.from([...before, ...chat.tokens, ...lead]);
  return { tokens, right, answer };
}

async function askOne(model, base, { tokens, right, answer }, masses) {
  const sequence = await base.fork();
  await sequence.setTokens(tokens);
  const options = { steps: right.length + spareSteps, sampling: greedy, stopIds: model.text.answerStopIds, masses };
  const drawn = await sequence.decode(options);
  const text = model.decode(drawn.steps.map(({ token }) => token));
  await sequence.setTokens(Uint32Array.from([...tokens, ...right]));
  const { logprobs } = await sequence.score({ from: tokens.length });
  await sequence.dispose();
  const nll = -logprobs.reduce((sum, each) => sum + each, 0) / right.length;
  return {
    text,
    exact: text.startsWith(answer) && !/^\w/.test(text.slice(answer.length)),
    nll,
    tokens: right.length,
    masses: drawn.masses,
  };
}

function sharedPrefix(all) {
  const [first, ...rest] = all;
  let length = first.length - 1;
  for (const other of rest) {
    let at = 0;
    while (at < length && at < other.length - 1 && first[at] === other[at]) at += 1;
    length = at;
  }
  return length;
}
