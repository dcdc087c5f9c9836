import { describe, expect, it } from "vitest";
import { page } from "../../../extension/page";

const options = {
  cspSource: "https://file.example",
  scriptUri: "https://file.example/chat.js",
  styleUri: "https://file.example/chat.css",
  nonce: "bm9uY2U",
  title: "Nosa",
  language: "de",
  data: { words: 'a "quoted" <b>word</b> & more' },
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

describe("a page of ours", () => {
  it("forbids everything but one script and our style sheet", () => {
    expect([...policyOf(page(options))]).toEqual([
      ["default-src", "'none'"],
      ["style-src", options.cspSource],
      ["script-src", `'nonce-${options.nonce}'`],
      ["base-uri", "'none'"],
      ["form-action", "'none'"],
    ]);
  });

  it("gives the nonce to its only script and holds no inline code", () => {
    const html = page(options);
    expect([...html.matchAll(/<script/g)]).toHaveLength(1);
    expect(html).toContain(`<script nonce="${options.nonce}" src="${options.scriptUri}"></script>`);
    expect(html).not.toMatch(/ on\w+=|javascript:|style=|unsafe/);
  });

  it("hands its data over as it is, in the editor's language", () => {
    const html = page(options);
    const data = /data-page="([^"]*)"/.exec(html)?.[1] ?? "";
    const plain = data
      .replaceAll("&lt;", "<")
      .replaceAll("&gt;", ">")
      .replaceAll("&quot;", '"')
      .replaceAll("&amp;", "&");
    expect(JSON.parse(plain)).toEqual(options.data);
    expect(html).toContain('<html lang="de">');
  });

  it("escapes what it is given", () => {
    const html = page({ ...options, scriptUri: 'x"><script>alert(1)</script>' });
    expect(html).not.toContain("<script>alert");
  });
});
