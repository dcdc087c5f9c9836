/** What talks to the network: the fetching of models, and nothing else. There is no telemetry that could be turned on. */
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { inRoot } from "../../scripts/lib/paths.mjs";

const sources = ["engine", "extension", "media"].flatMap((folder) =>
  readdirSync(inRoot(folder), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .map((name) => path.posix.join(folder, name.split(path.sep).join("/"))),
);
const holding = (pattern: RegExp): readonly string[] =>
  sources.filter((file) => pattern.test(readFileSync(inRoot(file), "utf8")));

describe("the network", () => {
  test("is reached from where models are fetched, and from nowhere else", () => {
    expect(sources.length).toBeGreaterThan(150);
    const global = /(?<![\w.#"'`])(?<!async )fetch\(|WebSocket|XMLHttpRequest|sendBeacon|EventSource/;
    expect(holding(global)).toEqual(["engine/models/hub.ts"]);
    expect(holding(/"(?:node:)?(?:https?|http2|tls|dns|dgram|inspector)(?:\/promises)?"/)).toEqual([]);
  });

  test("has one address in what is shipped: that of the hub of models", () => {
    for (const bundle of ["engine", "extension", "cli", "connection"]) {
      const text = readFileSync(inRoot("dist", `${bundle}.js`), "utf8");
      const hosts = new Set([...text.matchAll(/https?:\/\/([\w.-]+)/g)].map(([, host]) => host));
      expect([...hosts].filter((host) => host !== "huggingface.co")).toEqual([]);
    }
  });

  test("is told nothing by the editor's telemetry either", () => {
    expect(holding(/createTelemetryLogger|TelemetryLogger|telemetry/i)).toEqual([]);
  });
});
