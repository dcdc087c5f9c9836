// How long our model takes to its first words when another extension asks it through the editor, as agents do: with a long list of tools before the question.
import { randomUUID } from "node:crypto";
import { gone, shown } from "./harness.mjs";
import { ask } from "./probe.mjs";

const verbs = ["read", "write", "search", "list", "rename", "delete", "run", "describe"];
const things = ["file", "folder", "symbol", "test", "terminal"];

/** As many tools as an agent of the editor brings, some 16,000 characters of them. */
export const tools = things.flatMap((thing) =>
  verbs.map((verb) => ({
    name: `${verb}_${thing}`,
    description:
      // What an earlier run has kept is of no use to this one.
      (thing === things[0] && verb === verbs[0] ? `Of session ${randomUUID()}. ` : "") +
      `Use this to ${verb} a ${thing} of the workspace that the person has open. Paths are absolute. ` +
      `It fails where there is no such ${thing}, and says so; then look for it by another name before you give up.`,
    inputSchema: {
      type: "object",
      required: ["path"],
      properties: {
        path: { type: "string", description: `Absolute path of the ${thing}` },
        limit: { type: "number", description: "Most results that are wanted" },
      },
    },
  })),
);

/**
 * Milliseconds from a request to the first part of its answer, as that extension sees it: `fresh` for the first question with all tools, `kept` for each of
 * the others.
 */
export async function firstParts(editor, port, [first, ...others], onAnswer = () => undefined) {
  const wait = async (question, brought) => {
    const { firstMs } = await allowed(editor, ask(port, "model", { question, tools: brought }));
    onAnswer(firstMs, question);
    return firstMs;
  };
  // The editor asks once whether the other extension may use the model: nobody is timed then.
  await wait("Hello.", []);
  const fresh = await wait(first, tools);
  const kept = [];
  for (const question of others) kept.push(await wait(question, tools));
  return { fresh, kept };
}

/** Says yes where the editor asks whether the other extension may. */
async function allowed(editor, asking) {
  const allow = editor.page.locator(".monaco-dialog-box").getByRole("button", { name: /Allow/ });
  let isOver = false;
  void asking.finally(() => (isOver = true)).catch(() => undefined);
  while (!isOver) {
    if (await shown(allow)()) await editor.click(allow, gone(allow));
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return asking;
}
