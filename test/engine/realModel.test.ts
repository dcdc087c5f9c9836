/** The whole engine on a real model: a repository is read, asked about, edited and completed in. */

import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { CancellationTokenSource } from "vscode-languageserver-protocol/node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { silentLog } from "../../engine/log";
import { knownModels } from "../../engine/models/manifest";
import { openSession } from "../../engine/sessions/openSession";
import { bundleEngine } from "../support/engineBundle";
import { EngineHarness } from "../support/engineHarness";
import { temporaryFolder, writeFiles } from "../support/folders";
import { modelFile } from "../support/models";
import { roundTrips, watchDelays } from "../support/noise";

const defaultId = "qwen2.5-coder-0.5b-instruct";
/** For which the adapter is. */
const defaultSha256 = knownModels.find(({ id }) => id === defaultId)?.packages.sha256 ?? "";

let distFolder: string;
let modelPath: string;

beforeAll(async () => {
  distFolder = fs.mkdtempSync(path.join(os.tmpdir(), "nosa-real-"));
  await bundleEngine(distFolder);
  modelPath = await modelFile(defaultId);
}, 600_000);

afterAll(() => fs.rmSync(distFolder, { recursive: true, force: true }));

/** The engine in this process, so that its thread can be watched, with the real addon and tokenizer. */
function start(options: { readonly folder?: string; readonly file?: string } = {}): Promise<EngineHarness> {
  return EngineHarness.start({
    ...(options.folder === undefined ? {} : { folder: options.folder }),
    resolved: {
      id: "qwen",
      name: "Qwen",
      path: options.file ?? modelPath,
      segmentTokensMax: 2_048,
      sha256: defaultSha256,
    },
    openSession: (resolved, settings, store) =>
      openSession({ distFolder, resolved, settings: { ...settings, threads: 2 }, store, log: silentLog }),
  });
}

function repository(): string {
  const root = temporaryFolder();
  const functions = (name: string): string =>
    Array.from(
      { length: 12 },
      (_, index) =>
        `def ${name}_${index}(value):\n    """Adds ${index} to the value."""\n    return value + ${index}\n`,
    ).join("\n");
  writeFiles(root, {
    "README.md": "# Lantern\n\nLantern counts birds. The maintainer of Lantern is Ottilie Brandt.\n",
    "src/birds.py": functions("birds"),
    "src/trees.py": functions("trees"),
  });
  return root;
}

async function eventually(check: () => boolean | Promise<boolean>): Promise<void> {
  const until = Date.now() + 120_000;
  while (!(await check())) {
    if (Date.now() > until) throw new Error("It did not come true within 120 s");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const question = "Who is the maintainer of Lantern?";

describe("a real model", () => {
  it("reads a repository without blocking its thread, answers from it, and opens it again after a restart", async () => {
    const first = await start();
    const client = await first.connect();
    const root = repository();
    // Loading comes first: what is watched here is reading.
    await client.ask("", "Hello", { tokensMax: 2 });
    const watch = await watchDelays();
    const summary = await client.index(root);
    const { here, elsewhere } = await watch();
    expect(summary).toMatchObject({ files: 3, complete: true });
    expect(summary.tokensRead).toBe(summary.tokens);
    expect(here - elsewhere).toBeLessThan(20);

    const answer = await client.ask(root, question, { tokensMax: 40 });
    expect(answer.text).toContain("Ottilie");
    expect(answer.references.length).toBeGreaterThan(0);
    expect(answer.usage.contextTokens).toBeGreaterThan(summary.tokens);
    await first.stop();

    const second = await start({ folder: first.folder });
    const later = await second.connect();
    const again = await later.ask(root, question, { tokensMax: 40 });
    expect(again.text).toBe(answer.text);
    expect(again.references).toEqual(answer.references);
    expect(await later.index(root)).toMatchObject({ tokensRead: 0, complete: true });
  });

  it("reads an edited file again, and then answers as if it had always been so", async () => {
    const root = repository();
    const edited = await start();
    const client = await edited.connect();
    await client.index(root);
    await client.ask(root, question, { tokensMax: 8 });
    const readme = path.join(root, "README.md");
    fs.writeFileSync(readme, fs.readFileSync(readme, "utf8").replace("Ottilie Brandt", "Bartholomew Quist"));
    const summary = await client.index(root);
    expect(summary.tokensRead).toBeLessThan(summary.tokens / 2);
    const answer = await client.ask(root, question, { tokensMax: 30 });
    expect(answer.text).toContain("Bartholomew");
    expect(answer.text).not.toContain("Ottilie");
    await edited.stop();

    const fresh = await start();
    const other = await fresh.connect();
    await other.index(root);
    expect((await other.ask(root, question, { tokensMax: 30 })).text).toBe(answer.text);
  });

  it("tells a conversation of an edit, and it answers by it", async () => {
    const root = repository();
    const harness = await start();
    const client = await harness.connect();
    await client.index(root);
    const asked = { role: "user", content: question } as const;
    const first = await client.ask(root, "", { messages: [asked], tokensMax: 30 });
    expect(first.text).toContain("Ottilie");
    const readme = path.join(root, "README.md");
    fs.writeFileSync(readme, fs.readFileSync(readme, "utf8").replace("Ottilie Brandt", "Bartholomew Quist"));
    await client.index(root);
    const messages = [
      asked,
      { role: "assistant", content: first.text },
      { role: "user", content: "Who is it now? Give the name." },
    ] as const;
    const second = await client.ask(root, "", { messages, tokensMax: 40 });
    expect(second.text).toContain("Bartholomew");
  });

  it("reads 300 edited lines again in the time of their own tokens", async () => {
    const root = repository();
    const lines = (salt: number): string =>
      Array.from({ length: 300 }, (_, index) => `value_${index} = compute(${(index * 7919 + salt) % 1000})\n`).join("");
    writeFiles(root, { "src/values.py": lines(0), "src/zebra.py": lines(5) });
    const harness = await start();
    const client = await harness.connect();
    const whole = await client.index(root);
    writeFiles(root, { "src/values.py": lines(1) });
    const edit = await client.index(root);
    console.log(
      `${whole.tokens} tokens in ${whole.seconds.toFixed(1)} s; 300 edited lines: ${edit.tokensRead} tokens in ${edit.seconds.toFixed(1)} s`,
    );
    expect(edit.complete).toBe(true);
    expect(edit.tokensRead).toBeLessThan(whole.tokens * 0.6);
    // With a second for looking at the files.
    expect(edit.seconds - 1).toBeLessThan((whole.seconds * 1.5 * edit.tokensRead) / whole.tokens);
  });

  it("is idle within 100 ms of a cancel, whether it was reading or answering, and loses nothing by it", async () => {
    const harness = await start();
    const client = await harness.connect();
    const root = repository();
    writeFiles(root, {
      "long.py": Array.from({ length: 400 }, (_, index) => `x${index} = ${index * 7919}\n`).join(""),
    });
    await client.ask("", "Hello", { tokensMax: 2 });

    const cancelIndex = new CancellationTokenSource();
    const indexing = client.request("nosa/index", { root, editorExcludes: {} }, cancelIndex.token);
    await eventually(async () =>
      (await client.request("nosa/context", { root })).files.some(({ state }) => state.kind === "reading"),
    );
    await new Promise((resolve) => setTimeout(resolve, 300));
    let at = performance.now();
    cancelIndex.cancel();
    expect((await indexing).complete).toBe(false);
    expect(performance.now() - at).toBeLessThan(idleMsMax);
    expect((await client.index(root)).complete).toBe(true);

    const cancelChat = new CancellationTokenSource();
    const asking = client.ask(root, "Count from 1 to 500, one number a line.", { tokensMax: 400 }, cancelChat.token);
    await new Promise((resolve) => setTimeout(resolve, 500));
    at = performance.now();
    cancelChat.cancel();
    expect((await asking).finish).toBe("cancelled");
    expect(performance.now() - at).toBeLessThan(idleMsMax);
  });

  it("completes code while it reads another repository, and a round trip stays short", async () => {
    const harness = await start();
    const client = await harness.connect();
    const root = repository();
    await client.index(root);
    const other = repository();
    writeFiles(other, {
      "long.py": Array.from({ length: 300 }, (_, index) => `y${index} = ${index * 7919}\n`).join(""),
    });
    const indexing = client.index(other);
    const file = path.join(root, "src/new.py");
    await client.openDocument(file, "from birds import birds_1\n\ndef total(value):\n    return \n", "python");
    const [item] = await client.complete(file, 3, 11, { automatic: false });
    expect(item?.insertText).not.toBe("");
    expect((await indexing).complete).toBe(true);
    const { request, echo } = await roundTrips(100, () => client.request("nosa/models", {}));
    expect(request - echo).toBeLessThan(5);
  });

  it("refuses a file that is no model, in a sentence", async () => {
    const broken = path.join(temporaryFolder(), "broken.gguf");
    fs.writeFileSync(broken, fs.readFileSync(modelPath).subarray(0, 4_000_000));
    const harness = await start({ file: broken });
    const client = await harness.connect();
    await expect(client.ask("", "Hello")).rejects.toMatchObject({ data: { kind: "modelBroken" } });
    expect((await client.request("nosa/status", {})).problem).not.toBe("");
  });
});

/** The goal is 100 ms on a quiet machine; tests share theirs with whatever else runs. */
const idleMsMax = 300;
