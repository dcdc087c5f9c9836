/** The context as a cache: what is attended to, saved, lost, repaired, edited, and told to conversations. */

import * as fs from "node:fs";
import * as path from "node:path";
import { describe, expect, it } from "vitest";
import { dataPaths } from "../../engine/paths";
import { EngineHarness, type EngineTestClient } from "../support/engineHarness";
import { temporaryFolder, writeFiles } from "../support/folders";

const filler = (name: string, lines = 60): string =>
  Array.from({ length: lines }, (_, index) => `const ${name}${index} = ${index}; // line ${index} of ${name}\n`).join(
    "",
  );

/** Many more blocks than the budget. */
function repository(): string {
  const root = temporaryFolder();
  writeFiles(root, {
    "README.md": "# Sample\nThe capital of the sample is Quux.\n",
    "src/alpha.ts": `${filler("alpha")}export const alphaSecretNumber = 4711;\n`,
    "src/beta.ts": `${filler("beta")}export function betaRule() { return "always twice"; }\n`,
    "src/gamma.ts": filler("gamma"),
    "lib/delta.ts": filler("delta"),
  });
  return root;
}

async function eventually(check: () => boolean | Promise<boolean>): Promise<void> {
  const until = Date.now() + 10_000;
  while (!(await check())) {
    if (Date.now() > until) throw new Error("It did not come true within 10 s");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function indexed(options: Parameters<typeof EngineHarness.start>[0] = {}) {
  const harness = await EngineHarness.start({ segmentTokensMax: 1_024, ...options });
  const client = await harness.connect();
  const root = repository();
  await client.index(root);
  return { harness, client, root };
}

const contextsOf = (harness: EngineHarness): string => dataPaths(harness.folder).contexts;
const statusOf = async (client: EngineTestClient) => (await client.request("nosa/status", {})).contexts[0];

describe("selection", () => {
  it("attends to fewer blocks than there are, reads those from disk after a restart, and says so", async () => {
    const { harness, root } = await indexed();
    await harness.stop();
    const again = await EngineHarness.start({ folder: harness.folder, segmentTokensMax: 1_024 });
    const client = await again.connect();
    const { text, usage } = await client.ask(root, "alphaSecretNumber = ");
    expect(text).toBe("4711;");
    expect(usage.policy).toBe("nosa");
    expect(usage.attendedBlocks).toBeLessThan(usage.totalBlocks);
    expect(usage.blocksRead).toBeGreaterThan(0);
    expect(await statusOf(client)).toMatchObject({
      policy: "nosa",
      attendedBlocks: usage.attendedBlocks,
      totalBlocks: usage.totalBlocks,
      blocksRead: usage.blocksRead,
      selection: "trainingFree",
    });
    await eventually(async () => (await client.request("nosa/status", {})).memory.diskBytesRead > 0);
    const { memory } = await client.request("nosa/status", {});
    expect(memory.bytesMax).toBe(2e9);
    expect(memory.diskBytesMax).toBeGreaterThan(memory.diskBytes);
    expect(memory.diskBytes).toBeGreaterThan(0);
  });

  it("attends to what a question names on top of its budget, after a restart too", async () => {
    const { harness, client, root } = await indexed();
    const attended = async (from: EngineTestClient, question: string): Promise<number> =>
      (await from.ask(root, question)).usage.attendedBlocks;
    const usual = await attended(client, "The capital of the sample is ");
    const named = await attended(client, "export const alphaSecretNumber = ");
    expect(named).toBeGreaterThan(usual);
    // Found by nobody, or everywhere.
    expect(await attended(client, "secretOfNobody = ")).toBe(usual);
    await harness.stop();
    const again = await EngineHarness.start({ folder: harness.folder, segmentTokensMax: 1_024 });
    expect(await attended(await again.connect(), "export const alphaSecretNumber = ")).toBe(named);
  });

  it("attends to everything where there is no more than the budget", async () => {
    const harness = await EngineHarness.start();
    const client = await harness.connect();
    const root = temporaryFolder();
    writeFiles(root, { "a.md": "The capital is Quux.\n" });
    await client.index(root);
    const { usage } = await client.ask(root, "The capital is ");
    expect(usage).toMatchObject({ policy: "full", attendedBlocks: usage.totalBlocks });
  });

  it("stays within the scope, and leaves it again", async () => {
    const { client, root } = await indexed();
    const within = (...paths: string[]) => ({ scope: paths.map((file) => ({ path: file, startLine: 0, endLine: 0 })) });
    expect((await client.ask(root, "alphaSecretNumber = ", within("src/beta.ts"))).text).not.toContain("4711");
    expect((await client.ask(root, "alphaSecretNumber = ", within("lib/"))).text).not.toContain("4711");
    expect((await client.ask(root, "alphaSecretNumber = ", within("src/"))).text).toBe("4711;");
    expect((await client.ask(root, "alphaSecretNumber = ", within("lib/", "src/alpha.ts"))).text).toBe("4711;");
    expect((await client.ask(root, "alphaSecretNumber = ")).text).toBe("4711;");
  });

  it("attends to what is pinned, on top of the budget", async () => {
    const { client, root } = await indexed();
    const plain = await client.ask(root, "alphaSecretNumber = ");
    const pins = [{ path: "lib/delta.ts", startLine: 0, endLine: 0 }];
    const pinned = await client.ask(root, "alphaSecretNumber = ", { pins });
    expect(pinned.text).toBe("4711;");
    expect(pinned.usage.attendedBlocks).toBeGreaterThan(plain.usage.attendedBlocks);
    const gone = await client.ask(root, "alphaSecretNumber = ", {
      pins: [{ path: "no.ts", startLine: 1, endLine: 9 }],
    });
    expect(gone.usage.attendedBlocks).toBe(plain.usage.attendedBlocks);
  });
});

describe("a window that opens", () => {
  it("finds the model and the folder that was read loaded, before it asks", async () => {
    const { harness, root } = await indexed();
    await harness.stop();
    const again = await EngineHarness.start({ folder: harness.folder, segmentTokensMax: 1_024 });
    await again.connect({}, { client: "vscode" }, [temporaryFolder(), root]);
    const client = await again.connect();
    await eventually(async () => (await client.request("nosa/status", {})).model?.loaded === true);
    await eventually(() => again.workshop.loads >= 8);
    // The blocks that every question attends to, too.
    await eventually(() => again.workshop.prefetches > 0);
    const { deltas } = await client.ask(root, "alphaSecretNumber = ");
    expect(deltas.filter((delta) => delta.kind === "stage" && delta.stage !== "reading")).toEqual([]);
  });

  it("loads nothing where nothing was read", async () => {
    const harness = await EngineHarness.start();
    const client = await harness.connect({}, { client: "vscode" }, [temporaryFolder()]);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect((await client.request("nosa/status", {})).model?.loaded).toBe(false);
  });
});

/** A data folder as an engine leaves it that dies in the middle of a long segment, and what the whole would have cost. */
async function diedInTheMiddle() {
  const root = temporaryFolder();
  writeFiles(root, { "long.ts": filler("long", 400) });
  const engine = await EngineHarness.start({ segmentTokensMax: 8_192 });
  const client = await engine.connect();
  engine.workshop.millisPerToken = 0.8;
  const indexing = client.index(root).catch(() => undefined);
  await eventually(() => engine.workshop.checkpoints >= 3);
  // What is on disk now is all that a killed engine leaves.
  const folder = temporaryFolder();
  fs.cpSync(contextsOf(engine), dataPaths(folder).contexts, { recursive: true });
  engine.workshop.millisPerToken = 0;
  await indexing;
  const tokens = engine.workshop.tokensComputed;
  await engine.stop();
  return { root, folder, tokens };
}

describe("saving", () => {
  it("goes on in the middle of a segment after the engine died", async () => {
    const { root, folder, tokens } = await diedInTheMiddle();
    const second = await EngineHarness.start({ folder, segmentTokensMax: 8_192 });
    const later = await second.connect();
    const summary = await later.index(root);
    expect(summary.complete).toBe(true);
    expect(summary.tokensRead).toBeLessThanOrEqual(summary.tokens - 3 * 512);
    expect(second.workshop.tokensComputed).toBeLessThan(tokens - 3 * 512 + 64);
    expect(fs.readdirSync(path.join(contextsOf(second), "segments")).filter((name) => name.includes(".part"))).toEqual(
      [],
    );
    expect((await later.ask(root, "const long399 = ")).text).toContain("399;");
  });

  it("starts a segment anew whose part does not check out", async () => {
    const { root, folder } = await diedInTheMiddle();
    const segments = path.join(dataPaths(folder).contexts, "segments");
    for (const name of fs.readdirSync(segments))
      if (name.endsWith(".part")) fs.writeFileSync(path.join(segments, name), "{");
    const second = await EngineHarness.start({ folder, segmentTokensMax: 8_192 });
    expect(await (await second.connect()).index(root)).toMatchObject({ complete: true });
  });

  it("says that the disk budget is used up, and makes room by what was not used for longest", async () => {
    const harness = await EngineHarness.start({ segmentTokensMax: 1_024 });
    const one = await harness.connect({ diskGigabytes: 1 });
    const [first, second] = [repository(), repository()];
    await one.index(first);
    const taken = (await one.request("nosa/status", {})).memory.diskBytes;
    await harness.stop();
    const again = await EngineHarness.start({ folder: harness.folder, segmentTokensMax: 1_024 });
    // The fake's files are larger than its tokens say; the store counts them as they are.
    const client = await again.connect({ diskGigabytes: Math.max(0.05, (taken * 1.5) / 1e9) });
    await client.index(second);
    const { memory } = await client.request("nosa/status", {});
    expect(memory.diskBytes).toBeLessThanOrEqual(memory.diskBytesMax);
    expect((await client.ask(second, "alphaSecretNumber = ")).text).toBe("4711;");
  });

  it("reads anew what it is told to, though nothing changed", async () => {
    const { harness, client, root } = await indexed();
    const computed = harness.workshop.tokensComputed;
    const summary = await client.request("nosa/index", { root, editorExcludes: {}, reread: ["src/alpha.ts"] });
    expect(summary.tokensRead).toBeGreaterThan(0);
    expect(summary.tokensRead).toBeLessThan(summary.tokens / 2);
    expect(harness.workshop.tokensComputed - computed).toBeGreaterThan(1_000);
    const all = await client.request("nosa/index", { root, editorExcludes: {}, reread: ["/"] });
    expect(all.tokensRead).toBe(all.tokens);
  });
});

describe("damage", () => {
  it("that comes to light in the middle of a question is repaired, and the answer is right", async () => {
    const { harness, root } = await indexed();
    await harness.stop();
    const again = await EngineHarness.start({ folder: harness.folder, segmentTokensMax: 1_024 });
    const client = await again.connect();
    const segments = path.join(contextsOf(again), "segments");
    const damaged = fs
      .readdirSync(segments)
      .map((name) => path.join(segments, name))
      .find((file) => textOf(file).includes("alphaSecretNumber"));
    again.workshop.damagedFile = damaged ?? "";
    const answer = await client.ask(root, "alphaSecretNumber = ");
    expect(answer.text).toBe("4711;");
    expect(answer.deltas.map((delta) => (delta.kind === "text" ? delta.text : "")).join("")).toBe("4711;");
    expect(fs.readdirSync(path.join(contextsOf(again), "damaged"))).toHaveLength(1);
    expect(fs.existsSync(damaged ?? "")).toBe(true);
    expect((await client.request("nosa/context", { root })).files.every(({ state }) => state.kind === "fresh")).toBe(
      true,
    );
  });

  it("that comes to light when a segment is opened is repaired before the answer", async () => {
    const { harness, root } = await indexed();
    await harness.stop();
    const segments = path.join(contextsOf(harness), "segments");
    for (const name of fs.readdirSync(segments)) {
      const file = path.join(segments, name);
      if (textOf(file).includes("alphaSecretNumber"))
        fs.writeFileSync(file, fs.readFileSync(file, "utf8").slice(0, -9));
    }
    const again = await EngineHarness.start({ folder: harness.folder, segmentTokensMax: 1_024 });
    const client = await again.connect();
    expect((await client.ask(root, "alphaSecretNumber = ")).text).toBe("4711;");
  });
});

describe("edits", () => {
  const replace = (file: string, from: string, to: string): void =>
    fs.writeFileSync(file, fs.readFileSync(file, "utf8").replace(from, to));

  it("reach a conversation that goes on as a turn, and a new one as the context itself", async () => {
    const { harness, client, root } = await indexed();
    const first = { role: "user", content: "alphaSecretNumber = " } as const;
    const answer = await client.ask(root, "", { messages: [first] });
    replace(path.join(root, "src/beta.ts"), "always twice", "never again");
    replace(path.join(root, "src/alpha.ts"), "4711", "1234");
    await client.index(root);

    const messages = [
      first,
      { role: "assistant", content: answer.text },
      { role: "user", content: "The capital of the sample is " },
    ] as const;
    const computed = harness.workshop.tokensComputed;
    const second = await client.ask(root, "", { messages });
    expect(second.text).toBe("Quux.");
    expect(harness.workshop.lastPrompt).toContain("Line 61 of src/beta.ts is now:");
    expect(harness.workshop.lastPrompt).toContain('return "never again"');
    expect(harness.workshop.lastPrompt).toContain("alphaSecretNumber = 1234;");
    // The conversation's own words were not read again, but the news and the question.
    expect(harness.workshop.tokensComputed - computed).toBeLessThan(700);

    // The old lines are hidden from it, and it is told once.
    const third = [
      ...messages,
      { role: "assistant", content: "Quux." },
      { role: "user", content: "betaRule() { return " },
    ] as const;
    expect((await client.ask(root, "", { messages: third })).text).not.toContain("always twice");
    expect(harness.workshop.lastPrompt.split("Since this conversation began")).toHaveLength(2);

    expect((await client.ask(root, "betaRule() { return ")).text).toContain("never again");
    expect(harness.workshop.lastPrompt).not.toContain("Since this conversation began");
    expect((await client.ask(root, "", { messages: [first] })).text).toBe("1234;");
  });

  it("that are too much to tell move the conversation to the present state", async () => {
    const { harness, client, root } = await indexed();
    const first = { role: "user", content: "alphaSecretNumber = " } as const;
    await client.ask(root, "", { messages: [first] });
    writeFiles(root, { "src/beta.ts": `${filler("newbeta", 100)}export function betaRule() { return "never"; }\n` });
    await client.index(root);
    const messages = [
      first,
      { role: "assistant", content: "4711;" },
      { role: "user", content: "betaRule() { return " },
    ] as const;
    expect((await client.ask(root, "", { messages })).text).toContain("never");
    expect(harness.workshop.lastPrompt).not.toContain("Since this conversation began");
  });

  it("cost what follows the first difference in their segment, also when nothing was loaded", async () => {
    const { harness, root } = await indexed({ segmentTokensMax: 8_192 });
    await harness.stop();
    const again = await EngineHarness.start({ folder: harness.folder, segmentTokensMax: 8_192 });
    const client = await again.connect();
    replace(path.join(root, "src/beta.ts"), "always twice", "never again");
    const summary = await client.index(root);
    expect(summary.complete).toBe(true);
    expect(summary.tokensRead).toBeLessThan(200);
    expect((await client.ask(root, "betaRule() { return ")).text).toContain("never again");
  });

  it("that are taken back, as by switching branches, cost nothing", async () => {
    const { client, root } = await indexed();
    const file = path.join(root, "src/beta.ts");
    replace(file, "always twice", "never again");
    expect((await client.index(root)).tokensRead).toBeGreaterThan(0);
    replace(file, "never again", "always twice");
    expect(await client.index(root)).toMatchObject({ tokensRead: 0, complete: true });
    expect((await client.ask(root, "betaRule() { return ")).text).toContain("always twice");
  });

  it("drop what was deleted and read what was renamed", async () => {
    const { client, root } = await indexed();
    fs.rmSync(path.join(root, "src/gamma.ts"));
    fs.renameSync(path.join(root, "src/beta.ts"), path.join(root, "src/omega.ts"));
    const summary = await client.index(root);
    expect(summary).toMatchObject({ files: 4, complete: true });
    expect((await client.ask(root, "const gamma7 = ")).text).not.toContain("7;");
    const answer = await client.ask(root, "betaRule() { return ");
    expect(answer.text).toContain("always twice");
    expect(answer.references[0]?.path).toBe("src/omega.ts");
  });
});

/** What a fake segment holds, as text. */
function textOf(file: string): string {
  const { tokens } = JSON.parse(fs.readFileSync(file, "utf8")) as { tokens: number[] };
  return Buffer.from(tokens.filter((id) => id >= 3).map((id) => id - 3)).toString("utf8");
}
