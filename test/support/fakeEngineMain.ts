/** The scripted engine as a program, in the place of dist/engine.js: found and started the same way. */

import { FakeEngine } from "./fakeEngine";

const engine = new FakeEngine({
  stepMs: Number(process.env["NOSA_FAKE_STEP_MS"] ?? 100),
  record: process.env["NOSA_FAKE_RECORD"] ?? "",
  hold: process.env["NOSA_FAKE_HOLD"] ?? "",
  modelOnDisk: process.env["NOSA_FAKE_MODEL"] !== "none",
});
void engine.start(process.env);
