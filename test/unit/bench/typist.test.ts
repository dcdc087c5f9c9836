import path from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { stretches } from "../../../bench/editor/trace.mjs";
import { typeInto } from "../../../bench/engine/typist.mjs";

interface Place {
  readonly line: number;
  readonly character: number;
}

interface Params {
  readonly textDocument: { readonly uri: string; readonly version: number; readonly text: string };
  readonly contentChanges: readonly { readonly range: { readonly start: Place }; readonly text: string }[];
  readonly position: Place;
}

const root = path.resolve("repository");
const files = ["a.js", "b.js", "c.js"].map((name) => ({
  path: name,
  text: Array.from({ length: 50 }, (_, line) => `  const value${line} = read(${line}, "${name}");`).join("\n"),
}));

/** An engine's documents; offers what was deleted at the cursor, a line of it, every other time. */
class Documents {
  readonly open = new Map<string, string>();
  readonly closed: string[] = [];
  asked = 0;

  notify(method: string, { textDocument, contentChanges }: Params): Promise<void> {
    const { uri } = textDocument;
    const name = path.relative(root, fileURLToPath(uri));
    if (method === "textDocument/didOpen") this.open.set(name, textDocument.text);
    if (method === "textDocument/didChange") {
      for (const { range, text } of contentChanges) {
        const before = this.open.get(name) ?? "";
        const at = offsetOf(before, range.start);
        this.open.set(name, before.slice(0, at) + text + before.slice(at));
      }
    }
    if (method === "textDocument/didClose") {
      expect(this.open.get(name)).toBe(files.find((file) => file.path === name)?.text);
      this.open.delete(name);
      this.closed.push(name);
    }
    return Promise.resolve();
  }

  request(_method: string, { textDocument, position }: Params): Promise<object[]> {
    this.asked += 1;
    const name = path.relative(root, fileURLToPath(textDocument.uri));
    const at = offsetOf(this.open.get(name) ?? "", position);
    const whole = files.find((file) => file.path === name)?.text ?? "";
    const [line = ""] = whole.slice(at).split("\n");
    return Promise.resolve(this.asked % 2 === 0 ? [] : [{ insertText: line, data: { cached: false } }]);
  }
}

function offsetOf(text: string, { line, character }: Place): number {
  const above = text.split("\n").slice(0, line);
  return above.reduce((sum, each) => sum + each.length + 1, 0) + character;
}

test("what is typed and taken makes every file what it was", async () => {
  const engine = new Documents();
  const samples = await typeInto(engine, { root, files, stretches: stretches(files, "any"), edits: 10_000, pace: 0 });
  expect(engine.closed).toHaveLength(6);
  expect(samples).toHaveLength(engine.asked);
  expect(samples.some(({ accepted }: { readonly accepted: boolean }) => accepted)).toBe(true);
  expect(samples.some(({ text }: { readonly text: string }) => text === "")).toBe(true);
});

test("ends behind so many edits", async () => {
  const engine = new Documents();
  const samples = await typeInto(engine, { root, files, stretches: stretches(files, "any"), edits: 0, pace: 0 });
  expect(samples).toHaveLength(0);
  expect(engine.open.size).toBe(0);
});
