import { describe, expect, it } from "vitest";
import { namesAskedFor } from "../../../../engine/chat/names";

const user = (content: string) => ({ role: "user", content }) as const;
const sure = (text: string) => ({ text, sure: true });
const unsure = (text: string) => ({ text, sure: false });
const named = (content: string) => namesAskedFor([user(content)]);

describe("namesAskedFor", () => {
  it("takes what stands in code marks, in its parts", () => {
    expect(named("Quote the line that defines `ARCHIVE_PORT`, exactly.")).toEqual([sure("ARCHIVE_PORT")]);
    expect(named("What is `undici.RetryHandler` for?")).toEqual([sure("undici"), sure("RetryHandler")]);
    expect(named("Is `delete` slow, and `a` too?")).toEqual([sure("delete")]);
  });

  it("takes words that no sentence is written with", () => {
    expect(named("Who calls parseCookie or max_retries or _private or $store?").map(({ text }) => text)).toEqual([
      "parseCookie",
      "max_retries",
      "_private",
      "$store",
    ]);
    expect(named("what does dispatch() do, and std::move?")).toEqual([sure("dispatch"), sure("std"), sure("move")]);
    expect(named("why does agent.close throw?")).toEqual([sure("close")]);
  });

  it("leaves the words of a sentence alone", () => {
    expect(named("Where is the port defined? How does it start, and what for?")).toEqual([]);
    expect(named("See https: it's 3 o'clock. Then go on.")).toEqual([]);
    expect(named("")).toEqual([]);
  });

  it("takes a capital in the middle of a sentence for what may be a name, and none at its beginning", () => {
    expect(named("Explain Dispatcher. Please say what Agent does.")).toEqual([unsure("Dispatcher"), unsure("Agent")]);
    expect(named("- Tell me\n2. Another one\nMore")).toEqual([]);
    // What is meant as a name somewhere is one everywhere.
    expect(named("What is the Dispatcher? I mean `Dispatcher`.")).toEqual([sure("Dispatcher")]);
  });

  it("does not look into blocks of code", () => {
    const code = "```ts\nconst notThis = other_name();\n```";
    expect(named(`Fix this:\n${code}\nin parseCookie please`)).toEqual([sure("parseCookie")]);
    expect(named("Fix this:\n~~~\nnever_closed(")).toEqual([]);
  });

  it("puts what was asked last first, and leaves answers and instructions out", () => {
    const names = namesAskedFor([
      { role: "system", content: "Use `read_file`." },
      user("Where is `firstName`?"),
      { role: "assistant", content: "In `some_file`." },
      user("And `secondName`?"),
    ]);
    expect(names).toEqual([sure("secondName"), sure("firstName")]);
  });

  it("stays small however much is asked", () => {
    const names = named(Array.from({ length: 500 }, (_, at) => `some_name_${at}`).join(" "));
    expect(names).toHaveLength(32);
    expect(names[0]).toEqual(sure("some_name_0"));
  });
});
