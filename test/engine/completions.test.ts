/** Completions that are begun before they are asked for, and those that keep in sight what is pinned. */

import * as fs from "node:fs";
import * as path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { describe, expect, it } from "vitest";
import { dataPaths } from "../../engine/paths";
import { EngineHarness, type EngineTestClient } from "../support/engineHarness";
import { temporaryFolder, writeFiles } from "../support/folders";

const filler = (name: string, lines: number): string =>
  Array.from({ length: lines }, (_, index) => `const ${name}${index} = ${index}; // line ${index} of ${name}\n`).join(
    "",
  );

/** Of many more blocks than the budget; what completions copy stands in src/way.ts. */
async function indexed(): Promise<{ harness: EngineHarness; client: EngineTestClient; root: string; file: string }> {
  const root = temporaryFolder();
  writeFiles(root, {
    "src/way.ts": "const wayToNorth = 41;\nconst wayToSouth = 42;\nconst wayHome = 43;\n",
    "src/alpha.ts": filler("alpha", 150),
    "lib/beta.ts": filler("beta", 150),
  });
  const harness = await EngineHarness.start({ segmentTokensMax: 4_096 });
  const client = await harness.connect();
  await client.index(root);
  // What chats begin with is computed behind the reading: from here on the model works for completions alone.
  const records = path.join(dataPaths(harness.folder).contexts, "records");
  const texts = (): string[] =>
    fs.readdirSync(records).map((name) => fs.readFileSync(path.join(records, name), "utf8"));
  await expect.poll(() => texts().some((text) => !text.includes('"tails":[]'))).toBe(true);
  return { harness, client, root, file: path.join(root, "src/new.ts") };
}

/** Nothing is computed any more, for a while. */
async function settled(workshop: EngineHarness["workshop"]): Promise<void> {
  for (let before = -1; before !== workshop.tokensComputed + workshop.tokensDecoded;) {
    before = workshop.tokensComputed + workshop.tokensDecoded;
    await sleep(300);
  }
}

const first = "// the way\nconst wayTo";

describe("the next completion", () => {
  it("is begun while an offer is read: when that is accepted, it is there", async () => {
    const { harness, client, file } = await indexed();
    await client.openDocument(file, `${first}\n`);
    const [offer] = await client.complete(file, 1, 11);
    expect(offer).toMatchObject({ insertText: "North = 41;", data: { cached: false } });

    // Nobody asks, and yet the model is at work on what comes after the offer.
    const { tokensComputed, tokensDecoded } = harness.workshop;
    await expect.poll(() => harness.workshop.tokensComputed).toBeGreaterThan(tokensComputed);
    await client.type(file, 2, 1, 11, "North = 41;");
    expect(await client.complete(file, 1, 22)).toEqual([]);

    // Nothing is to be added to that line, so the one below is begun; the user has only to get there.
    await expect.poll(() => harness.workshop.tokensDecoded - tokensDecoded).toBe("const wayToSouth = 42;".length);
    await client.type(file, 3, 1, 22, "\n");
    const [below] = await client.complete(file, 2, 0);
    expect(below).toMatchObject({ insertText: "const wayToSouth = 42;", data: { cached: true } });
  });

  it("gives way to what is asked for instead", async () => {
    const { harness, client, file } = await indexed();
    await client.openDocument(file, `${first}\n`);
    await client.complete(file, 1, 11);
    harness.workshop.millisPerToken = 20;
    await expect.poll(() => harness.workshop.busy, { interval: 5 }).toBe(true);
    harness.workshop.millisPerToken = 0;
    await client.type(file, 2, 1, 11, "Sou");
    const [other] = await client.complete(file, 1, 14);
    expect(other).toMatchObject({ insertText: "th = 42;", data: { cached: false } });
    expect(harness.workshop.overlaps).toBe(0);
  });

  it("is adopted while it is still being written, and then as urgent as any other", async () => {
    const { harness, client, root, file } = await indexed();
    await client.openDocument(file, `${first}\n`);
    await client.complete(file, 1, 11);
    harness.workshop.millisPerToken = 3;
    await expect.poll(() => harness.workshop.busy, { interval: 5 }).toBe(true);
    await client.type(file, 2, 1, 11, "North = 41;");
    const order: string[] = [];
    const chat = client.ask(root, "const wayHome = ").then(({ text }) => order.push(text));
    const asking = client.complete(file, 1, 22).then((items) => order.push(`${items.length} offers`));
    await Promise.all([asking, chat]);
    expect(order).toEqual(["0 offers", "43;"]);
  });
});

describe("a place that a completion may be asked for", () => {
  const near = (file: string, line: number, character: number) => ({ uri: pathToFileURL(file).href, line, character });

  it("is read before that, so that the rest alone is waited for", async () => {
    const { harness, client, file } = await indexed();
    await client.openDocument(file, `${first}\n`);
    const { workshop } = harness;
    const { tokensComputed, tokensDecoded } = workshop;
    await client.request("nosa/prepare", near(file, 1, 11));
    await expect.poll(() => workshop.tokensComputed).toBeGreaterThan(tokensComputed);
    await settled(workshop);
    expect(workshop.tokensDecoded).toBe(tokensDecoded);

    const read = workshop.tokensComputed - tokensComputed;
    // From here on what is read takes its time, and there is nothing to be read.
    Object.defineProperty(workshop, "millisPerToken", { get: () => (workshop.tokensDecoded > tokensDecoded ? 0 : 50) });
    const [offer] = await client.complete(file, 1, 11);
    expect(offer).toMatchObject({ insertText: "North = 41;", data: { cached: false, promptTokensRead: read } });
    expect(offer?.data.millis.prefill).toBeLessThan(50);
  });

  it("that was typed has its completion begun, of which only the rest is waited for", async () => {
    const { harness, client, file } = await indexed();
    const { workshop } = harness;
    await client.openDocument(file, "// the way\nconst way\n");
    await client.request("nosa/prepare", near(file, 1, 9));
    await settled(workshop);
    const { tokensDecoded } = workshop;
    // The cursor came there; nothing was typed yet.
    expect(tokensDecoded).toBe(0);

    const tokenMs = 40;
    const millisPerToken = { get: () => (workshop.tokensDecoded > tokensDecoded ? tokenMs : 0), configurable: true };
    Object.defineProperty(workshop, "millisPerToken", millisPerToken);
    await client.type(file, 2, 1, 9, "To");
    await client.request("nosa/prepare", near(file, 1, 11));
    await expect.poll(() => workshop.tokensDecoded - tokensDecoded, { interval: 5 }).toBeGreaterThan(4);
    // A key that is what is offered, which goes on.
    await client.type(file, 3, 1, 11, "No");
    await client.request("nosa/prepare", near(file, 1, 13));
    const [rest] = await client.complete(file, 1, 13);
    expect(rest).toMatchObject({ insertText: "rth = 41;" });
    expect(workshop.tokensDecoded - tokensDecoded).toBe("North = 41;".length);
  });

  it("counts as asked for too early while its completion is being written, with the time that was waited for", async () => {
    const { harness, client, file } = await indexed();
    const { workshop } = harness;
    await client.openDocument(file, "// the way\nconst way\n");
    await client.request("nosa/prepare", near(file, 1, 9));
    await settled(workshop);
    const tokenMs = 40;
    Object.defineProperty(workshop, "millisPerToken", { get: () => (workshop.tokensDecoded > 0 ? tokenMs : 0) });
    await client.type(file, 2, 1, 9, "To");
    await client.request("nosa/prepare", near(file, 1, 11));
    await expect.poll(() => workshop.tokensDecoded, { interval: 5 }).toBeGreaterThan(4);
    const askedAt = performance.now();
    const [offer] = await client.complete(file, 1, 11);
    const waitedMs = performance.now() - askedAt;
    expect(offer).toMatchObject({ insertText: "North = 41;", data: { cached: false } });
    expect(offer?.data.promptTokensRead).toBeGreaterThan(0);
    expect(offer?.data.millis.decode).toBeLessThanOrEqual(waitedMs + 1);
    expect(offer?.data.millis.decode).toBeGreaterThan(tokenMs);
  });

  it("is as urgent as a completion once one is asked for there", async () => {
    const { harness, client, root, file } = await indexed();
    await client.openDocument(file, `${first}\n`);
    harness.workshop.millisPerToken = 3;
    await client.request("nosa/prepare", near(file, 1, 11));
    await expect.poll(() => harness.workshop.busy, { interval: 5 }).toBe(true);
    const order: string[] = [];
    const chat = client.ask(root, "const wayHome = ").then(({ text }) => order.push(text));
    const asking = client.complete(file, 1, 11).then(([offer]) => order.push(offer?.insertText ?? ""));
    await Promise.all([asking, chat]);
    expect(order).toEqual(["North = 41;", "43;"]);
    expect(harness.workshop.overlaps).toBe(0);
  });

  it("gives way to the next key, which keeps what was read", async () => {
    const { harness, client, file } = await indexed();
    const text = `${filler("before", 12)}${first}`;
    await client.openDocument(file, `${text}\n`);
    const line = text.split("\n").length - 1;
    const { workshop } = harness;
    workshop.millisPerToken = 1;
    const { tokensComputed } = workshop;
    await client.request("nosa/prepare", near(file, line, 11));
    await expect.poll(() => workshop.tokensComputed - tokensComputed, { interval: 5 }).toBeGreaterThan(100);
    await client.type(file, 2, line, 11, "Sou");
    await client.request("nosa/prepare", near(file, line, 14));
    const [offer] = await client.complete(file, line, 14);
    expect(offer).toMatchObject({ insertText: "th = 42;", data: { cached: false } });
    const { promptTokens = 0, promptTokensRead = 0 } = offer?.data ?? {};
    expect(promptTokensRead).toBeLessThan(promptTokens - 90);
    expect(workshop.overlaps).toBe(0);
  });

  it("does not stop what somebody waits for in another file, and is not read where typing is not answered", async () => {
    const { harness, client, file } = await indexed();
    await client.openDocument(file, `${first}\n`);
    harness.workshop.millisPerToken = 3;
    const asked = client.complete(file, 1, 11);
    await expect.poll(() => harness.workshop.busy, { interval: 5 }).toBe(true);
    const otherFile = `${file}.other.ts`;
    await client.openDocument(otherFile, `${first}\n`);
    await client.request("nosa/prepare", near(otherFile, 1, 11));
    expect(await asked).toMatchObject([{ insertText: "North = 41;" }]);

    const other = await harness.connect({
      completions: { enabled: true, automatic: false, languages: {}, tokensMax: 64 },
    });
    await other.openDocument(otherFile, `${first}\n`);
    harness.workshop.millisPerToken = 0;
    await settled(harness.workshop);
    const { tokensComputed } = harness.workshop;
    await other.request("nosa/prepare", near(otherFile, 1, 11));
    await settled(harness.workshop);
    expect(harness.workshop.tokensComputed).toBe(tokensComputed);
  });
});

describe("a completion that takes long", () => {
  it("is offered as far as it was written after 1.3 s", async () => {
    const { harness, client, file } = await indexed();
    await client.openDocument(file, `${first}\n`);
    // Slow from the first word on.
    const { workshop } = harness;
    const { tokensDecoded } = workshop;
    Object.defineProperty(workshop, "millisPerToken", {
      get: () => (workshop.tokensDecoded > tokensDecoded ? 700 : 0),
    });
    const [offer] = await client.complete(file, 1, 11);
    const text = offer?.insertText ?? "";
    expect(text).not.toBe("");
    expect("North = 41;".startsWith(text)).toBe(true);
    expect(text.length).toBeLessThan("North = 41;".length);
  });
});

describe("pins", () => {
  it("are attended to by completions, beside what the selection chooses", async () => {
    const { harness, client, root, file } = await indexed();
    await client.openDocument(file, `${first}\n`);
    const plain = (await client.complete(file, 1, 11, { automatic: false }))[0]?.data;
    expect(plain?.attendedTokens).toBeGreaterThan(0);
    await client.request("nosa/pins", { root, pins: [{ path: "src/alpha.ts", startLine: 0, endLine: 0 }] });
    const [pinned] = await client.complete(file, 1, 11, { automatic: false });
    expect(pinned?.insertText).toBe("North = 41;");
    expect(pinned?.data.attendedTokens).toBeGreaterThan(plain?.attendedTokens ?? Infinity);

    // They are this client's: another window has its own.
    const other = await harness.connect();
    await other.openDocument(file, `${first}\n`);
    expect((await other.complete(file, 1, 11, { automatic: false }))[0]?.data).toMatchObject({
      attendedTokens: plain?.attendedTokens,
    });
    await client.request("nosa/pins", { root, pins: [] });
    expect((await client.complete(file, 1, 11, { automatic: false }))[0]?.data).toMatchObject({
      attendedTokens: plain?.attendedTokens,
    });
  });

  it("ask anew for what was offered without them", async () => {
    const { client, root, file } = await indexed();
    await client.openDocument(file, `${first}\n`);
    await client.complete(file, 1, 11);
    expect((await client.complete(file, 1, 11))[0]?.data.cached).toBe(true);
    await client.request("nosa/pins", { root, pins: [{ path: "src/", startLine: 0, endLine: 0 }] });
    expect((await client.complete(file, 1, 11))[0]?.data.cached).toBe(false);
  });
});

describe("text behind the cursor", () => {
  it("that a model sees first is not read again for what the editor closes", async () => {
    const root = temporaryFolder();
    writeFiles(root, { "src/way.ts": "const wayToNorth = find('41');\nconst wayHome = 43;\n" });
    const harness = await EngineHarness.start({ completionOrder: "suffix-first" });
    const client = await harness.connect();
    await client.index(root);
    const file = path.join(root, "src/new.ts");
    const below = filler("below", 20);
    await client.openDocument(file, `${first}\n\n${below}`);
    const [offer] = await client.complete(file, 1, 11);
    expect(offer).toMatchObject({ insertText: "North = find('41');" });

    await settled(harness.workshop);
    await client.type(file, 2, 1, 11, "North = find('')");
    const [within] = await client.complete(file, 1, 25);
    expect(within).toMatchObject({ insertText: "41", data: { cached: false } });
    expect(within?.data.promptTokens).toBeGreaterThan(below.length);
    // The cue with its marks, and a few tokens that it was before.
    expect(within?.data.promptTokensRead).toBeLessThan(50);
  });
});
