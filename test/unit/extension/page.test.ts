import { describe, expect, it } from "vitest";
import { chatPage } from "../../../../extension/chatView/html";

const options = {
  cspSource: "https://file.example",
  scriptUri: "https://file.example/chat.js",
  styleUri: "https://file.example/chat.css",
  nonce: "bm9uY2U",
};

function policyOf(page: string): Map<string, string> {
  const policy = /http-equiv="Content-Security-Policy" content="([^"]*)"/.exec(page)?.[1] ?? "";
  return new Map(
    policy.split(";").map((directive) => {
      const [name = "", ...sources] = directive.trim().split(" ");
      return [name, sources.join(" ")];
    }),
  );
}

describe("the page of the chat view", () => {
  it("forbids everything but one script and our style sheet", () => {
    expect([...policyOf(chatPage(options))]).toEqual([
      ["default-src", "'none'"],
      ["style-src", options.cspSource],
      ["script-src", `'nonce-${options.nonce}'`],
      ["base-uri", "'none'"],
      ["form-action", "'none'"],
    ]);
  });

  it("gives the nonce to its only script and holds no inline code", () => {
    const page = chatPage(options);
    expect([...page.matchAll(/<script/g)]).toHaveLength(1);
    expect(page).toContain(`<script nonce="${options.nonce}" src="${options.scriptUri}"></script>`);
    expect(page).not.toMatch(/ on\w+=|javascript:|style=|unsafe/);
  });

  it("escapes what it is given", () => {
    const page = chatPage({ ...options, scriptUri: 'x"><script>alert(1)</script>' });
    expect(page).not.toContain("<script>alert");
  });
});
