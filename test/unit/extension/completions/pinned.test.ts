import { EventEmitter } from "vscode";
import { describe, expect, it } from "vitest";
import type { Engine } from "../../../../extension/client";
import { Pinned } from "../../../../extension/completions/pinned";
import { Pins, wholeOf } from "../../../../extension/pins";

function setUp() {
  const kept = new Map<string, unknown>();
  const pins = new Pins({
    get: (key: string): never => kept.get(key) as never,
    update: (key: string, value: unknown) => Promise.resolve(void kept.set(key, value)),
  });
  const changed = new EventEmitter<void>();
  const told: unknown[] = [];
  const errors: unknown[] = [];
  const refusal: { message: string } = { message: "" };
  const engine = {
    state: { kind: "connecting" } as Engine["state"],
    onDidChange: changed.event,
    request: (_method: string, params: unknown): Promise<never> => {
      told.push(params);
      return refusal.message === "" ? Promise.resolve({} as never) : Promise.reject(new Error(refusal.message));
    },
  };
  const move = (kind: "connecting" | "connected"): void => {
    engine.state = { kind };
    changed.fire();
  };
  const pinned = new Pinned({ engine, pins, roots: () => ["/shop", "/desk"], onError: (error) => errors.push(error) });
  return { pins, told, errors, refusal, move, pinned };
}

const place = (path: string) => ({ path, startLine: 0, endLine: 0 });

describe("what is pinned", () => {
  it("is told to an engine when it connects, and to the next one again, but for roots with no pins", async () => {
    const { pins, told, move } = setUp();
    await pins.add("/shop", wholeOf("src/fees.ts"));
    expect(told).toEqual([]);
    move("connected");
    const first = [{ root: "/shop", pins: [place("src/fees.ts")] }];
    expect(told).toEqual(first);
    // A new status is no new connection.
    move("connected");
    expect(told).toEqual(first);
    move("connecting");
    move("connected");
    expect(told).toEqual([...first, ...first]);
  });

  it("is told whenever it changes, and when the last pin is gone", async () => {
    const { pins, told, move } = setUp();
    move("connected");
    await pins.add("/desk", wholeOf("docs/"));
    await pins.add("/elsewhere", wholeOf("x.ts"));
    await pins.remove("/desk", wholeOf("docs/"));
    expect(told).toEqual([
      { root: "/desk", pins: [place("docs/")] },
      { root: "/desk", pins: [] },
    ]);
  });

  it("is told once more after the engine refused it, and the refusal is reported", async () => {
    const { pins, told, errors, refusal, move, pinned } = setUp();
    refusal.message = "busy";
    await pins.add("/shop", wholeOf("a.ts"));
    move("connected");
    await expect.poll(() => errors).toHaveLength(1);
    refusal.message = "";
    pinned.tell();
    pinned.tell();
    expect(told).toHaveLength(2);
  });
});
