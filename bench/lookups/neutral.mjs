// What answers to unrelated questions draw on, as the engine measures it, without an engine.
import { finish, greedy } from "../lib/context.mjs";
import { product } from "../lib/product.mjs";

/** Average masses of the product's neutral answers behind `context`. */
export async function measureNeutral(context, selection) {
  const { model } = context;
  const sum = new product.MassSum();
  for (const { question, answer } of product.neutralQuestions) {
    const { sequence } = await context.tail();
    await sequence.select(selection);
    const { tokens } = await model.text.chat({ messages: [{ role: "user", content: question }], tokensMax: 4_096 });
    await sequence.setTokens(tokens);
    await finish(sequence);
    const teacher = await model.encode(answer);
    const { masses } = await sequence.decode({
      steps: teacher.length,
      sampling: greedy,
      stopIds: [],
      teacher,
      masses: true,
    });
    sum.add(masses, 1);
    await sequence.dispose();
  }
  return sum.average();
}
