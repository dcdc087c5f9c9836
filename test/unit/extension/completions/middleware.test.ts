import {
  CancellationTokenSource,
  InlineCompletionItem,
  InlineCompletionTriggerKind,
  Position,
  Range,
  Uri,
} from "vscode";
import type { InlineCompletionContext, TextDocument } from "vscode";
import { describe, expect, it, vi } from "vitest";
import { CompletionMiddleware } from "../../../../extension/completions/middleware";

/** A document of one line per entry, with just what the middleware asks of it. */
function documentOf(text: string, scheme = "file"): TextDocument {
  const offsetAt = (at: Position): number => {
    const lines = text.split("\n").slice(0, at.line);
    return lines.reduce((sum, line) => sum + line.length + 1, 0) + at.character;
  };
  const made = {
    uri: Uri.from({ scheme, path: "/a.ts" }),
    languageId: "typescript",
    offsetAt,
    getText: (range?: Range) => (range === undefined ? text : text.slice(offsetAt(range.start), offsetAt(range.end))),
  };
  return made as unknown as TextDocument;
}

const automatic = { triggerKind: InlineCompletionTriggerKind.Automatic } as InlineCompletionContext;
const invoked = { triggerKind: InlineCompletionTriggerKind.Invoke } as InlineCompletionContext;

function setUp({ enabled = true, ready = true, byTyping = true, compared = false } = {}) {
  let nowMs = 0;
  const pauses: number[] = [];
  const errors: unknown[] = [];
  const answers: unknown[] = [];
  const middleware = new CompletionMiddleware({
    settings: () => ({ enabled, automatic: byTyping, languages: { "*": true }, tokensMax: 64 }),
    quiet: () => false,
    isCompared: () => compared,
    isReady: () => ready,
    nowMs: () => (nowMs += 100),
    pause: async (ms) => void pauses.push(ms),
    onError: (error) => errors.push(error),
    onAnswer: (stats) => answers.push(stats),
  });
  return { provide: middleware.provideInlineCompletionItems, pauses, errors, answers };
}

const never = new CancellationTokenSource().token;

describe("the completion middleware", () => {
  it("waits while typing, and not when asked by hand", async () => {
    const { provide, pauses } = setUp();
    const next = vi.fn(async () => null);
    await provide(documentOf("a"), new Position(0, 1), automatic, never, next);
    expect(pauses).toHaveLength(1);
    await provide(documentOf("a"), new Position(0, 1), invoked, never, next);
    expect(pauses).toHaveLength(1);
    expect(next).toHaveBeenCalledTimes(2);
  });

  it("neither asks nor answers for a text that has changed, though nobody said yet that the request is cancelled", async () => {
    const { provide, answers } = setUp();
    const document = { ...documentOf("a"), version: 1 };
    const next = vi.fn(async () => {
      document.version += 1;
      return [new InlineCompletionItem("bc", new Range(0, 1, 0, 1))];
    });
    expect(await provide(document, new Position(0, 1), automatic, never, next)).toBeNull();
    expect(answers).toEqual([]);
    const asked = provide(document, new Position(0, 1), automatic, never, next);
    document.version += 1;
    expect(await asked).toBeNull();
    expect(next).toHaveBeenCalledTimes(1);
  });

  it("does not ask the engine when the next key came meanwhile", async () => {
    const source = new CancellationTokenSource();
    const middleware = new CompletionMiddleware({
      settings: () => ({ enabled: true, automatic: true, languages: {}, tokensMax: 64 }),
      quiet: () => false,
      isCompared: () => false,
      isReady: () => true,
      nowMs: () => 0,
      pause: async () => source.cancel(),
      onError: () => undefined,
      onAnswer: () => undefined,
    });
    const next = vi.fn(async () => null);
    const given = await middleware.provideInlineCompletionItems(
      documentOf("a"),
      new Position(0, 1),
      automatic,
      source.token,
      next,
    );
    expect(given).toBeNull();
    expect(next).not.toHaveBeenCalled();
  });

  it("asks nothing where completions are off or do not belong, nor without a model", async () => {
    const next = vi.fn(async () => null);
    await setUp({ enabled: false }).provide(documentOf("a"), new Position(0, 1), invoked, never, next);
    await setUp({ ready: false }).provide(documentOf("a"), new Position(0, 1), invoked, never, next);
    await setUp({ compared: true }).provide(documentOf("a"), new Position(0, 1), invoked, never, next);
    await setUp().provide(documentOf("a", "chatSessionInput"), new Position(0, 1), invoked, never, next);
    expect(next).not.toHaveBeenCalled();
  });

  it("lets ghost text follow the typing with no request and no wait", async () => {
    const { provide, pauses } = setUp();
    const next = vi.fn(async () => [new InlineCompletionItem("return x;", new Range(0, 0, 0, 0))]);
    await provide(documentOf("\n}"), new Position(0, 0), automatic, never, next);
    const given = await provide(documentOf("ret\n}"), new Position(0, 3), automatic, never, next);
    expect(next).toHaveBeenCalledTimes(1);
    expect(pauses).toHaveLength(1);
    expect(given).toMatchObject([{ insertText: "urn x;" }]);
  });

  it("does not wait for the next offer when one was accepted whole", async () => {
    const { provide, pauses } = setUp();
    const next = vi.fn(async () => [new InlineCompletionItem("return x;\n", new Range(0, 0, 0, 0))]);
    await provide(documentOf("}"), new Position(0, 0), automatic, never, next);
    await provide(documentOf("return x;\n}"), new Position(1, 0), automatic, never, next);
    expect(next).toHaveBeenCalledTimes(2);
    expect(pauses).toHaveLength(1);
  });

  it("does not wait either when the line below is begun, but when something is typed there", async () => {
    const { provide, pauses } = setUp();
    const offers = [[new InlineCompletionItem("return x;", new Range(0, 2, 0, 2))], [], [], []];
    const next = vi.fn(async () => offers.shift() ?? []);
    await provide(documentOf("  \n}"), new Position(0, 2), automatic, never, next);
    await provide(documentOf("  return x;\n}"), new Position(0, 11), automatic, never, next);
    await provide(documentOf("  return x;\n  \n}"), new Position(1, 2), automatic, never, next);
    expect(pauses).toHaveLength(1);
    await provide(documentOf("  return x;\n  i\n}"), new Position(1, 3), automatic, never, next);
    expect(pauses).toHaveLength(2);
    expect(next).toHaveBeenCalledTimes(4);
  });

  it("leaves typing alone where only the editor's command may ask", async () => {
    const { provide } = setUp({ byTyping: false });
    const next = vi.fn(async () => null);
    await provide(documentOf("a"), new Position(0, 1), automatic, never, next);
    expect(next).not.toHaveBeenCalled();
    await provide(documentOf("a"), new Position(0, 1), invoked, never, next);
    expect(next).toHaveBeenCalledTimes(1);
  });

  it("tells what an answer cost, and gives the rest of an offer the same command", async () => {
    const { provide, answers } = setUp();
    const stats = { promptTokens: 5, millis: { queue: 0, prefill: 1, decode: 2 } };
    const command = { title: "", command: "nosa.completionAccepted", arguments: [stats] };
    const next = vi.fn(async () => [new InlineCompletionItem("return x;", new Range(0, 0, 0, 0), command)]);
    await provide(documentOf("\n}"), new Position(0, 0), automatic, never, next);
    expect(answers).toEqual([stats]);
    const given = await provide(documentOf("ret\n}"), new Position(0, 3), automatic, never, next);
    expect(given).toMatchObject([{ insertText: "urn x;", command }]);
    // The rest of it was there already.
    expect(answers).toMatchObject([stats, { cached: true, tokens: 0, millis: { prefill: 0, decode: 0 } }]);
  });

  it("asks again when another letter was typed", async () => {
    const { provide } = setUp();
    const next = vi.fn(async () => [new InlineCompletionItem("return x;", new Range(0, 0, 0, 0))]);
    await provide(documentOf("\n}"), new Position(0, 0), automatic, never, next);
    await provide(documentOf("i\n}"), new Position(0, 1), automatic, never, next);
    expect(next).toHaveBeenCalledTimes(2);
  });

  it("does not reuse an item that replaces text after the cursor", async () => {
    const { provide } = setUp();
    const next = vi.fn(async () => [new InlineCompletionItem("call()", new Range(0, 0, 0, 1))]);
    await provide(documentOf(")"), new Position(0, 0), automatic, never, next);
    await provide(documentOf("c)"), new Position(0, 1), automatic, never, next);
    expect(next).toHaveBeenCalledTimes(2);
  });

  it("gives nothing when the engine fails, and tells of the same failure once", async () => {
    const { provide, errors } = setUp();
    const ask = async (message: string): Promise<unknown> =>
      provide(documentOf("a"), new Position(0, 1), automatic, never, async () => Promise.reject(new Error(message)));
    for (const message of ["gone", "gone", "broken", "gone"]) expect(await ask(message)).toBeNull();
    expect(errors).toHaveLength(3);
    const cancelled = Object.assign(new Error("cancelled"), { code: -32800 });
    await provide(documentOf("a"), new Position(0, 1), automatic, never, async () => Promise.reject(cancelled));
    expect(errors).toHaveLength(3);
  });
});
