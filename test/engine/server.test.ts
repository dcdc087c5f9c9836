import * as fs from "node:fs";
import * as path from "node:path";
import { pathToFileURL } from "node:url";
import { CancellationTokenSource } from "vscode-languageserver-protocol/node";
import { describe, expect, it } from "vitest";
import { EngineError } from "../../engine/errors";
import { dataPaths } from "../../engine/paths";
import { engineErrorCode, protocolVersion, type IndexProgress } from "../../engine/protocol";
import { EngineHarness, EngineTestClient } from "../support/engineHarness";
import { temporaryFolder, writeFiles } from "../support/folders";
import { roundTrips } from "../support/noise";

const kind = (wanted: string) => expect.objectContaining({ code: engineErrorCode, data: { kind: wanted } });

/** Enough text for several segments. */
function repository(): string {
  const root = temporaryFolder();
  const filler = (name: string): string =>
    Array.from({ length: 40 }, (_, index) => `const ${name}${index} = ${index}; // line ${index} of ${name}`).join(
      "\n",
    );
  writeFiles(root, {
    "README.md": "# Sample\nThe capital of the sample is Quux.\n",
    "src/alpha.ts": `${filler("alpha")}\nexport const alphaSecretNumber = 4711;\n`,
    "src/beta.ts": `${filler("beta")}\nexport function betaRule() { return "always twice"; }\n`,
    "test/gamma.test.ts": `${filler("gamma")}\n`,
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

/** What every chat begins with is made ready, and saved, behind the reading. */
async function chatBeginningSaved(harness: EngineHarness): Promise<void> {
  const records = path.join(dataPaths(harness.folder).contexts, "records");
  const texts = (): string[] =>
    fs.readdirSync(records).map((name) => fs.readFileSync(path.join(records, name), "utf8"));
  await eventually(() => texts().some((text) => !text.includes('"tails":[]')));
}

describe("handshake", () => {
  it("tells a client what it can do and how it is", async () => {
    const harness = await EngineHarness.start();
    const client = await EngineTestClient.open(dataPaths(harness.folder).socket);
    const hello = { protocolVersion, token: harness.lock.token, client: "test", settings: {} };
    expect(await client.introduce(hello)).toMatchObject({
      capabilities: { inlineCompletionProvider: {}, textDocumentSync: { openClose: true } },
    });
    expect(await client.request("nosa/status", {})).toMatchObject({
      engineVersion: "1.0.0",
      clients: 1,
      activity: { kind: "idle" },
      contexts: [],
      problem: "",
      model: { id: "copy", loaded: false },
    });
    client.dispose();
  });

  it("refuses a wrong token, another protocol and a client that says nothing, and tells them nothing", async () => {
    const harness = await EngineHarness.start();
    await expect(harness.connect({}, { token: "guess" })).rejects.toEqual(kind("forbidden"));
    await expect(harness.connect({}, { token: harness.lock.token.slice(1) })).rejects.toEqual(kind("forbidden"));
    await expect(harness.connect({}, { protocolVersion: 99 })).rejects.toEqual(kind("versionMismatch"));
    const silent = await EngineTestClient.open(dataPaths(harness.folder).socket);
    await expect(silent.introduce(undefined)).rejects.toEqual(kind("badRequest"));
    await expect(silent.request("nosa/status", {})).rejects.toEqual(kind("forbidden"));
    await expect(silent.request("nosa/context", { root: "/" })).rejects.toEqual(kind("forbidden"));
    silent.dispose();
  });

  it("survives bytes that are no message", async () => {
    const harness = await EngineHarness.start();
    const rude = await EngineTestClient.open(dataPaths(harness.folder).socket);
    rude.socket.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n\0\0\0Content-Length: 12\r\n\r\n{not json}..");
    await new Promise((resolve) => setTimeout(resolve, 50));
    rude.dispose();
    const client = await harness.connect();
    expect(await client.request("nosa/status", {})).toMatchObject({ clients: expect.any(Number) as number });
  });

  it("names what is wrong with params, and goes on", async () => {
    const harness = await EngineHarness.start();
    const client = await harness.connect();
    const bad = [
      client.request("nosa/index", {} as never),
      client.request("nosa/chat", { root: "", messages: [], tokensMax: 10, temperature: 0, seed: 0 }),
      client.ask("", "hello", { tokensMax: 0 }),
      client.ask("", "hello", { temperature: -1 }),
      client.request("nosa/download", { model: 5 } as never),
    ];
    for (const each of bad) await expect(each).rejects.toEqual(kind("badRequest"));
    expect(await client.request("nosa/models", {})).toEqual([]);
  });
});

describe("indexing", () => {
  it("reads a repository, tells its progress, and a second time finds everything done", async () => {
    const harness = await EngineHarness.start({ segmentTokensMax: 1_024 });
    const client = await harness.connect();
    const root = repository();
    const progress: IndexProgress[] = [];
    client.on("nosa/indexProgress", (each) => progress.push(each));
    const first = await client.index(root);
    expect(first).toMatchObject({ root, files: 4, complete: true });
    expect(first.tokens).toBe(first.tokensRead);
    expect(new Set(progress.map(({ stage }) => stage))).toEqual(new Set(["scanning", "loading", "reading", "saving"]));
    expect(progress.every((each) => each.root === root)).toBe(true);
    const computed = harness.workshop.tokensComputed;
    expect(await client.index(root)).toMatchObject({ files: 4, tokens: first.tokens, tokensRead: 0, complete: true });
    // What chats begin with may have been made ready in between.
    expect(harness.workshop.tokensComputed - computed).toBeLessThan(300);
  });

  it("lists files with their state, and what was left out with the reason", async () => {
    const harness = await EngineHarness.start();
    const client = await harness.connect();
    const root = repository();
    writeFiles(root, { "logo.png": Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0, 0, 0, 0), ".env": "KEY=1\n" });
    const summary = await client.index(root);
    const view = await client.request("nosa/context", { root });
    expect(view.tokens).toBe(summary.tokens);
    expect(view.bytesOnDisk).toBeGreaterThan(0);
    const stateOf = (name: string) => view.files.find(({ path: file }) => file === name)?.state;
    expect(stateOf("src/alpha.ts")).toEqual({ kind: "fresh" });
    expect(stateOf("logo.png")).toEqual({ kind: "leftOut", reason: "binary" });
    expect(stateOf(".env")).toEqual({ kind: "leftOut", reason: "secret" });
  });

  it("leaves out the least useful when not all fits, and says so", async () => {
    const harness = await EngineHarness.start();
    const client = await harness.connect({ contextTokensMax: 3_000 });
    const root = repository();
    const summary = await client.index(root);
    expect(summary.tokens).toBeLessThanOrEqual(3_100);
    const view = await client.request("nosa/context", { root });
    const budget = view.files.filter(({ state }) => state.kind === "leftOut" && state.reason === "budget");
    expect(budget.map(({ path: file }) => file)).toContain("test/gamma.test.ts");
    expect(view.files.find(({ path: file }) => file === "README.md")?.state).toEqual({ kind: "fresh" });
  });

  it("is cancelled between segments, keeps what is done and resumes without reading it again", async () => {
    const harness = await EngineHarness.start({ segmentTokensMax: 1_024 });
    const client = await harness.connect();
    const root = repository();
    harness.workshop.millisPerToken = 0.2;
    const cancel = new CancellationTokenSource();
    client.on("nosa/indexProgress", ({ tokensDone }) => {
      if (tokensDone > 2_000) cancel.cancel();
    });
    const stopped = await client.request("nosa/index", { root, editorExcludes: {} }, cancel.token);
    expect(stopped.complete).toBe(false);
    expect(stopped.tokensRead).toBeGreaterThan(0);
    harness.workshop.millisPerToken = 0;
    const rest = await client.index(root);
    expect(rest.complete).toBe(true);
    // Not even the segment that was under way when it was cancelled is begun again.
    const besides = harness.workshop.tokensComputed - rest.tokens;
    expect(besides).toBeGreaterThan(0);
    expect(besides).toBeLessThan(350);
  });

  it("goes on after the engine died, from what is on disk", async () => {
    const root = repository();
    const first = await EngineHarness.start({ segmentTokensMax: 1_024 });
    const client = await first.connect();
    const summary = await client.index(root);
    await first.stop();
    const [, second = ""] = fs.readdirSync(path.join(dataPaths(first.folder).contexts, "segments"));
    fs.writeFileSync(path.join(dataPaths(first.folder).contexts, "segments", second), "{ damaged");
    const again = await EngineHarness.start({ folder: first.folder, segmentTokensMax: 1_024 });
    const later = await again.connect();
    const status = await later.request("nosa/status", {});
    expect(status.contexts).toMatchObject([{ root, tokens: summary.tokens }]);
    // Opening finds the damage; what it held is read again, and nothing else.
    await later.ask(root, "alphaSecretNumber = ");
    const repaired = await later.index(root);
    expect(repaired).toMatchObject({ complete: true, tokens: summary.tokens });
    expect(repaired.tokensRead).toBeLessThan(summary.tokens);
    expect((await later.ask(root, "alphaSecretNumber = ")).text).toBe("4711;");
  });

  it("shares one run among all who ask for the same repository, and stops when the last has left", async () => {
    const harness = await EngineHarness.start();
    const [one, two] = [await harness.connect(), await harness.connect()];
    const root = repository();
    harness.workshop.millisPerToken = 0.05;
    const cancel = new CancellationTokenSource();
    const first = one.request("nosa/index", { root, editorExcludes: {} }, cancel.token);
    const second = two.index(root);
    await eventually(() => harness.workshop.tokensComputed > 0);
    cancel.cancel();
    const [left, stayed] = await Promise.all([first, second]);
    expect(stayed.complete).toBe(true);
    expect(left.tokens).toBe(stayed.tokens);
    expect(harness.workshop.tokensComputed).toBeLessThan(stayed.tokens * 1.2);
  });

  it("reads an edited file again, from its first difference, and nothing else", async () => {
    const harness = await EngineHarness.start({ segmentTokensMax: 2_048 });
    const client = await harness.connect();
    const root = repository();
    const before = await client.index(root);
    await client.ask(root, "betaRule() { return ");
    const file = path.join(root, "src/beta.ts");
    fs.writeFileSync(file, fs.readFileSync(file, "utf8").replace("always twice", "never again"));
    const computed = harness.workshop.tokensComputed;
    const changes = [{ uri: pathToFileURL(file).href, type: 2 }];
    await client.connection.sendNotification("workspace/didChangeWatchedFiles", { changes });
    await eventually(async () =>
      (await client.request("nosa/context", { root })).files.some(({ state }) => state.kind === "stale"),
    );
    await eventually(async () => (await client.ask(root, "betaRule() { return ")).text.includes("never again"));
    const view = await client.request("nosa/context", { root });
    expect(view.files.every(({ state }) => state.kind === "fresh")).toBe(true);
    expect(harness.workshop.tokensComputed - computed).toBeLessThan(before.tokens / 4);
  });

  it("answers while it reads, from what is ready", async () => {
    const harness = await EngineHarness.start({ segmentTokensMax: 1_024 });
    const client = await harness.connect();
    const root = repository();
    harness.workshop.millisPerToken = 0.5;
    const indexing = client.index(root);
    await eventually(async () => (await client.request("nosa/status", {})).contexts.some(({ tokens }) => tokens > 0));
    const answer = await client.ask(root, "The capital of the sample is ");
    expect(answer.text).toBe("Quux.");
    expect((await client.request("nosa/context", { root })).files.some(({ state }) => state.kind !== "fresh")).toBe(
      true,
    );
    harness.workshop.millisPerToken = 0;
    expect((await indexing).complete).toBe(true);
    expect(harness.workshop.overlaps).toBe(0);
  });

  it("refuses a folder that is not there, and one with nothing to read, in a sentence", async () => {
    const harness = await EngineHarness.start();
    const client = await harness.connect();
    await expect(client.index("/nowhere/at/all")).rejects.toEqual(kind("rootMissing"));
    await expect(client.index("relative/path")).rejects.toEqual(kind("rootMissing"));
    await expect(client.index(temporaryFolder())).rejects.toEqual(kind("repositoryEmpty"));
  });

  it("says that the disk is full, keeps answering from memory, and reads the rest when there is room", async () => {
    const harness = await EngineHarness.start();
    const client = await harness.connect();
    const root = repository();
    harness.workshop.saveFailure = "noSpace";
    await expect(client.index(root)).rejects.toEqual(kind("noSpace"));
    harness.workshop.saveFailure = undefined;
    expect(await client.index(root)).toMatchObject({ complete: true });
  });

  it("passes on why there is no model", async () => {
    const modelFailure = new EngineError("modelMissing", "There is no model on this machine: fetch one.");
    const harness = await EngineHarness.start({ modelFailure });
    const client = await harness.connect();
    await expect(client.index(repository())).rejects.toEqual(kind("modelMissing"));
    expect(await client.request("nosa/status", {})).toMatchObject({ model: null, problem: modelFailure.message });
  });

  it("forgets a repository, in memory and on disk", async () => {
    const harness = await EngineHarness.start();
    const client = await harness.connect();
    const root = repository();
    await client.index(root);
    expect((await client.request("nosa/forget", { root })).bytesFreed).toBeGreaterThan(0);
    expect(fs.readdirSync(path.join(dataPaths(harness.folder).contexts, "segments"))).toEqual([]);
    await expect(client.ask(root, "x")).rejects.toEqual(kind("notIndexed"));
    expect((await client.request("nosa/status", {})).contexts).toEqual([]);
    expect(await client.request("nosa/forget", { root })).toEqual({ bytesFreed: 0 });
  });

  it.each([
    ["a segment", (name: string, records: string) => name.endsWith(".kv") && records.includes(name.slice(0, 64))],
    ["a part of a segment", (name: string) => name.endsWith(".part")],
    [
      "what chats begin with",
      (name: string, records: string) => records !== "" && !records.includes(name.slice(0, 64)),
    ],
  ])("forgets %s that is being written while somebody forgets", async (_, isIt) => {
    const harness = await EngineHarness.start();
    const client = await harness.connect();
    // Slow enough for parts of a segment to be saved.
    harness.workshop.millisPerToken = 0.4;
    const folder = dataPaths(harness.folder).contexts;
    const files = (sub: string): string[] => fs.readdirSync(path.join(folder, sub));
    const root = repository();
    let forgetting: Promise<number> | undefined;
    harness.workshop.onWritten = async (file) => {
      const records = files("records").map((name) => fs.readFileSync(path.join(folder, "records", name), "utf8"));
      if (forgetting !== undefined || !isIt(path.basename(file), records.join("\n"))) return;
      forgetting = harness.engine.forget(root);
      // Until the work whose file this is has been told to stop.
      await new Promise((resolve) => setTimeout(resolve, 100));
    };
    await client.index(root);
    await eventually(() => forgetting !== undefined);
    await forgetting;
    expect(files("segments")).toEqual([]);
    expect(files("records")).toEqual([]);
  });
});

describe("chat", () => {
  it("answers from the repository, streamed, and names the lines it drew on", async () => {
    const harness = await EngineHarness.start({ segmentTokensMax: 2_048 });
    const client = await harness.connect();
    const root = repository();
    await client.index(root);
    const answer = await client.ask(root, "alphaSecretNumber = ");
    expect(answer.text).toBe("4711;");
    expect(answer.finish).toBe("stop");
    const streamed = answer.deltas.map((delta) => (delta.kind === "text" ? delta.text : "")).join("");
    expect(streamed).toBe(answer.text);
    expect(answer.references[0]).toMatchObject({ path: "src/alpha.ts" });
    const [best] = answer.references;
    expect(best?.startLine).toBeLessThanOrEqual(41);
    expect(best?.endLine).toBeGreaterThanOrEqual(41);
    expect(answer.usage.contextTokens).toBeGreaterThan(1_000);
    expect(answer.usage.totalBlocks).toBeGreaterThan(10);
    expect((await client.request("nosa/status", {})).contexts[0]?.attendedBlocks).toBe(answer.usage.attendedBlocks);
  });

  it("explains an answer when asked why: the same answer, and attention to more than is named", async () => {
    const harness = await EngineHarness.start({ segmentTokensMax: 2_048 });
    const client = await harness.connect();
    const root = repository();
    await client.index(root);
    const question = { root, messages: [{ role: "user", content: "alphaSecretNumber = " }] } as const;
    const sampling = { tokensMax: 40, temperature: 0, seed: 1 };
    const before = harness.workshop.tokensDecoded;
    const answer = await client.request("nosa/chat", { ...question, ...sampling, why: true });
    const measuring = harness.workshop.tokensDecoded - before;
    expect(answer.text).toBe("4711;");
    const [best, ...rest] = answer.references;
    expect(best).toMatchObject({ path: "src/alpha.ts" });
    expect(best?.startLine).toBeLessThanOrEqual(41);
    expect(best?.endLine).toBeGreaterThanOrEqual(41);
    expect(rest).toEqual([]);
    expect(answer.attention?.[0]).toEqual(best);
    // What answers to unrelated questions draw on is measured once for a context.
    const again = await client.request("nosa/chat", { ...question, ...sampling, why: true });
    expect(again.references).toEqual(answer.references);
    expect(harness.workshop.tokensDecoded - before).toBeLessThan(2 * measuring);
  });

  it("keeps the conversation's tail: a follow-up computes only what was added", async () => {
    const harness = await EngineHarness.start();
    const client = await harness.connect();
    const root = repository();
    await client.index(root);
    const long = "x".repeat(600);
    const messages = [
      { role: "user", content: long },
      { role: "assistant", content: "yes" },
    ] as const;
    await client.ask(root, "", { messages: [...messages, { role: "user", content: "alphaSecretNumber = " }] });
    const computed = harness.workshop.tokensComputed;
    const answer = await client.ask(root, "", {
      messages: [...messages, { role: "user", content: "betaRule() { return " }],
    });
    expect(answer.text).toContain("always twice");
    expect(harness.workshop.tokensComputed - computed).toBeLessThan(100);
  });

  it("is stopped by cancelling: what was said is returned, and the engine is idle within 100 ms", async () => {
    const harness = await EngineHarness.start();
    const client = await harness.connect();
    const root = repository();
    writeFiles(root, { "long.txt": `the long story goes ${"on and ".repeat(100)}\n` });
    await client.index(root);
    await chatBeginningSaved(harness);
    harness.workshop.millisPerToken = 2;
    const cancel = new CancellationTokenSource();
    const asking = client.ask(root, "the long story goes ", {}, cancel.token);
    await eventually(() => harness.workshop.tokensDecoded > 20);
    cancel.cancel();
    const at = performance.now();
    const answer = await asking;
    expect(performance.now() - at).toBeLessThan(100);
    expect(answer.finish).toBe("cancelled");
    expect("on and ".repeat(100).startsWith(answer.text)).toBe(true);
    expect(answer.text.length).toBeGreaterThan(10);
    expect(harness.workshop.busy).toBe(false);
  });

  it("stops when the client goes away in the middle", async () => {
    const harness = await EngineHarness.start();
    const client = await harness.connect();
    const other = await harness.connect();
    const root = repository();
    writeFiles(root, { "long.txt": `the long story goes ${"on and ".repeat(100)}\n` });
    await client.index(root);
    harness.workshop.millisPerToken = 5;
    client.ask(root, "the long story goes ").catch(() => undefined);
    await eventually(() => harness.workshop.tokensDecoded > 3);
    client.dispose();
    await eventually(async () => (await other.request("nosa/status", {})).activity.kind === "idle");
    expect(harness.workshop.tokensDecoded).toBeLessThan(100);
  });

  it("ends at the number of tokens that was asked for", async () => {
    const harness = await EngineHarness.start();
    const client = await harness.connect();
    const root = repository();
    await client.index(root);
    const answer = await client.ask(root, "The capital of the ", { tokensMax: 6 });
    expect(answer).toMatchObject({ text: "sample", finish: "length" });
    expect(answer.usage.answerTokens).toBe(6);
  });

  it("chats with no repository, and refuses one that was not read", async () => {
    const harness = await EngineHarness.start();
    const client = await harness.connect();
    expect((await client.ask("", "hello")).text).toBe("?");
    await expect(client.ask(repository(), "hello")).rejects.toEqual(kind("notIndexed"));
  });

  it("restores a saved context after a restart without computing any of it", async () => {
    const root = repository();
    const first = await EngineHarness.start();
    await (await first.connect()).index(root);
    await chatBeginningSaved(first);
    await first.stop();
    const second = await EngineHarness.start({ folder: first.folder });
    const client = await second.connect();
    const answer = await client.ask(root, "alphaSecretNumber = ");
    expect(answer.text).toBe("4711;");
    expect(answer.deltas.filter(({ kind: each }) => each === "stage")).toContainEqual({
      kind: "stage",
      stage: "restoring",
    });
    expect(second.workshop.tokensComputed).toBeLessThan(50);
  });

  it("frees what it no longer needs: the number of sequences stays bounded", async () => {
    const harness = await EngineHarness.start();
    const client = await harness.connect();
    const root = repository();
    await client.index(root);
    for (let round = 0; round < 30; round++) await client.ask(root, `question ${round} ${"y".repeat(round)}`);
    await eventually(() => harness.workshop.sequencesAlive < 20);
    await client.request("nosa/forget", { root });
    await eventually(() => harness.workshop.sequencesAlive <= 2);
  });
});

describe("completions", () => {
  const live = "export const unrelated = 1;\nexport const alphaSecretNumber";

  it("offers what the repository says, at the cursor, on the line", async () => {
    const harness = await EngineHarness.start();
    const root = repository();
    const client = await harness.connect({}, {}, [root]);
    await client.index(root);
    const file = path.join(root, "src/new.ts");
    await client.openDocument(file, `${live}\n`);
    const [item] = await client.complete(file, 1, 30);
    expect(item?.insertText).toBe(" = 4711;");
    expect(item?.range).toEqual({ start: { line: 1, character: 30 }, end: { line: 1, character: 30 } });
    expect(item?.data).toMatchObject({ cached: false });
    expect(item?.data.contextTokens).toBeGreaterThan(1_000);
  });

  it("does not see the saved state of the file that is being edited", async () => {
    const harness = await EngineHarness.start({ segmentTokensMax: 2_048 });
    const root = repository();
    const client = await harness.connect();
    await client.index(root);
    const file = path.join(root, "src/alpha.ts");
    await client.openDocument(file, `${live}\n`);
    const items = await client.complete(file, 1, 30);
    expect(items.map(({ insertText }) => insertText)).not.toContain(" = 4711;");
  });

  it("follows the typing: what was offered is offered on with no work, what is typed costs itself", async () => {
    const harness = await EngineHarness.start();
    const root = repository();
    const client = await harness.connect();
    await client.index(root);
    const file = path.join(root, "src/new.ts");
    await client.openDocument(file, `${"// far above\n".repeat(60)}export const alphaSecretN\n`);
    await client.complete(file, 60, 25);
    let computed = harness.workshop.tokensComputed;
    await client.type(file, 2, 60, 25, "umb");
    const [cached] = await client.complete(file, 60, 28);
    expect(cached).toMatchObject({ insertText: "er = 4711;", data: { cached: true } });
    // Where this took long, what comes after the offer was begun meanwhile: its text, and nothing above it.
    expect(harness.workshop.tokensComputed - computed).toBeLessThan(60);
    computed = harness.workshop.tokensComputed;
    await client.type(file, 3, 60, 28, "X");
    await client.complete(file, 60, 29);
    expect(harness.workshop.tokensComputed - computed).toBeLessThan(60);
  });

  it("extends the entry that is selected in the editor's own list", async () => {
    const harness = await EngineHarness.start();
    const root = repository();
    const client = await harness.connect();
    await client.index(root);
    const file = path.join(root, "src/new.ts");
    await client.openDocument(file, "export const alphaSec\n");
    const [item] = await client.complete(file, 0, 21, { selected: { text: "alphaSecretNumber", from: 13 } });
    expect(item).toMatchObject({ insertText: "alphaSecretNumber = 4711;" });
    expect(item?.range).toEqual({ start: { line: 0, character: 13 }, end: { line: 0, character: 21 } });
  });

  it("is off where the settings say so, unless asked for by name", async () => {
    const harness = await EngineHarness.start();
    const root = repository();
    const client = await harness.connect({
      completions: { enabled: true, automatic: true, languages: { "*": true, typescript: false }, tokensMax: 32 },
    });
    await client.index(root);
    const file = path.join(root, "src/new.ts");
    await client.openDocument(file, `${live}\n`);
    expect(await client.complete(file, 1, 30)).toEqual([]);
    expect(await client.complete(file, 1, 30, { automatic: false })).toHaveLength(1);
  });

  it("goes before an answer and before indexing, which then go on", async () => {
    const harness = await EngineHarness.start({ segmentTokensMax: 1_024 });
    const root = repository();
    const client = await harness.connect();
    await client.index(root);
    const other = repository();
    writeFiles(other, { "more.ts": "const more = 1;\n".repeat(300) });
    harness.workshop.millisPerToken = 0.4;
    const indexing = client.index(other);
    const chat = client.ask(root, "betaRule() { return ");
    const file = path.join(root, "src/new.ts");
    await client.openDocument(file, `${live}\n`);
    await eventually(() => harness.workshop.tokensComputed > 6_000);
    const at = performance.now();
    const [item] = await client.complete(file, 1, 30);
    expect(item?.insertText).toBe(" = 4711;");
    expect(performance.now() - at).toBeLessThan(1_000);
    harness.workshop.millisPerToken = 0;
    expect((await chat).text).toContain("always twice");
    const summary = await indexing;
    expect(summary).toMatchObject({ complete: true });
    expect(harness.workshop.overlaps).toBe(0);
  });

  it("returns nothing, and no error, when it is cancelled", async () => {
    const harness = await EngineHarness.start();
    const root = repository();
    const client = await harness.connect();
    await client.index(root);
    const file = path.join(root, "src/new.ts");
    await client.openDocument(file, `${live}\n`);
    harness.workshop.millisPerToken = 20;
    const cancel = new CancellationTokenSource();
    const asking = client.complete(file, 1, 30, {}, cancel.token);
    setTimeout(() => cancel.cancel(), 60);
    expect(await asking).toEqual([]);
  });

  it("offers nothing for a document it does not know", async () => {
    const harness = await EngineHarness.start();
    const client = await harness.connect();
    expect(await client.complete("/never/opened.ts", 0, 0)).toEqual([]);
  });
});

describe("the process", () => {
  it("tells every client when its state changes, at most ten times a second", async () => {
    const harness = await EngineHarness.start();
    const [one, two] = [await harness.connect(), await harness.connect()];
    let told = 0;
    two.on("nosa/statusChanged", () => (told += 1));
    const at = performance.now();
    harness.workshop.millisPerToken = 0.05;
    await one.index(repository());
    await eventually(() => told > 0);
    expect(told).toBeLessThanOrEqual(((performance.now() - at) / 1000) * 10 + 2);
  });

  it("is abandoned when the last client has left for a while, and not while one is there", async () => {
    const harness = await EngineHarness.start({ idleExitMs: 150 });
    const client = await harness.connect();
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(harness.abandoned).toBe(false);
    client.dispose();
    await eventually(() => harness.abandoned);
  });

  it("when drained finishes what runs and refuses what is new", async () => {
    const harness = await EngineHarness.start();
    const client = await harness.connect();
    const root = repository();
    await client.index(root);
    harness.workshop.millisPerToken = 5;
    const asking = client.ask(root, "alphaSecretNumber = ");
    await eventually(() => harness.workshop.tokensDecoded > 0);
    const drained = client.request("nosa/drain", {});
    await new Promise((resolve) => setTimeout(resolve, 10));
    await expect(client.ask(root, "x")).rejects.toEqual(kind("draining"));
    expect((await asking).text).toBe("4711;");
    await drained;
  });

  it("answers an idle round trip in under 5 ms at the 95th percentile", async () => {
    const harness = await EngineHarness.start();
    const client = await harness.connect();
    const { request, echo } = await roundTrips(300, () => client.request("nosa/status", {}));
    expect(request - echo).toBeLessThan(5);
  });
});
