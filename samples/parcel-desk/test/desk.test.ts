import assert from "node:assert/strict";
import { appendFileSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import test from "node:test";
import { defaults } from "../src/config.js";
import { Desk } from "../src/desk.js";
import { type Message, Outbox, retryDelayMs } from "../src/notifications.js";
import type { Delivery } from "../src/types.js";

const dayMs = 24 * 60 * 60 * 1000;

const shoes: Delivery = {
  courier: "Swift",
  addressee: { name: "Ada", contact: "+49 30 1234", channel: "sms" },
  dimensions: { lengthMm: 330, widthMm: 180, heightMm: 80 },
};

function deskAt(folder = mkdtempSync(path.join(tmpdir(), "desk-")), places = defaults.places) {
  const sent: Message[] = [];
  const clock = { nowMs: Date.UTC(2026, 0, 5) };
  const outbox = new Outbox(
    async (message) => void sent.push(message),
    () => undefined,
  );
  const desk = new Desk({
    config: { ...defaults, dataFolder: folder, places },
    outbox,
    nowMs: () => clock.nowMs,
    random: Math.random,
  });
  return { desk, sent, clock, folder };
}

test("a parcel comes, is announced and collected free of charge", async () => {
  const { desk, sent } = deskAt();
  const parcel = desk.receive(shoes);
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(parcel.shelf, "S1");
  assert.match(sent[0]?.text ?? "", new RegExp(parcel.code));
  assert.equal(desk.collect(parcel.code.toLowerCase(), "here").feeCents, 0);
  assert.equal(desk.free("small"), defaults.places.small);
});

test("three started days beyond seven cost three times the price of the size", () => {
  const { desk, clock } = deskAt();
  const parcel = desk.receive(shoes);
  clock.nowMs += 9 * dayMs + 1;
  assert.equal(desk.collect(parcel.code, "here").feeCents, 3 * defaults.feeCentsPerDay.small);
});

test("the sweep reminds, marks and returns, each once", () => {
  const { desk, clock } = deskAt();
  desk.receive(shoes);
  clock.nowMs += 3 * dayMs;
  assert.deepEqual(desk.sweep(), { reminded: 1, overdue: 0, returned: 0 });
  assert.deepEqual(desk.sweep(), { reminded: 0, overdue: 0, returned: 0 });
  clock.nowMs += 4 * dayMs;
  assert.deepEqual(desk.sweep(), { reminded: 0, overdue: 1, returned: 0 });
  clock.nowMs += 7 * dayMs;
  assert.deepEqual(desk.sweep(), { reminded: 0, overdue: 0, returned: 1 });
  assert.equal(desk.waiting().length, 0);
});

test("a full size spills over to the next larger, and a full desk refuses", () => {
  const { desk } = deskAt(undefined, { small: 1, medium: 1, large: 0 });
  assert.equal(desk.receive(shoes).shelf, "S1");
  assert.equal(desk.receive(shoes).shelf, "M1");
  assert.throws(() => desk.receive(shoes), /No place left/);
});

test("a restart finds everything as it was, and cuts off half a line", () => {
  const first = deskAt();
  const kept = first.desk.receive(shoes);
  const gone = first.desk.receive(shoes);
  first.desk.collect(gone.code, "here");
  first.desk.close();
  appendFileSync(path.join(first.folder, "events.jsonl"), '{"kind":"rec');
  const second = deskAt(first.folder);
  assert.deepEqual(second.desk.waiting(), [kept]);
  assert.equal(second.desk.receive(shoes).shelf, "S2");
});

test("five wrong codes and even the right one has to wait", () => {
  const { desk, clock } = deskAt();
  const parcel = desk.receive(shoes);
  for (let attempt = 0; attempt < 5; attempt += 1) assert.throws(() => desk.collect("2222222", "thief"), /No parcel/);
  assert.throws(() => desk.collect(parcel.code, "thief"), /Too many wrong codes/);
  assert.equal(desk.collect(parcel.code, "owner").state, "collected");
  clock.nowMs += defaults.attemptsWindowMs;
  assert.throws(() => desk.collect("2222222", "thief"), /No parcel/);
});

test("waiting times double up to a quarter of an hour", () => {
  assert.deepEqual([1, 2, 3, 8, 9].map(retryDelayMs), [5_000, 10_000, 20_000, 640_000, 900_000]);
});
