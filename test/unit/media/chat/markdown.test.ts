import { describe, expect, it } from "vitest";
import { markdownHtml } from "../../../../media/chat/markdown";

describe("markdown of an answer", () => {
  it("renders structure and code with its language", () => {
    expect(markdownHtml("# T\n\n- a\n\n```ts\nlet a;\n```")).toBe(
      '<h1>T</h1>\n<ul>\n<li>a</li>\n</ul>\n<pre><code class="language-ts">let a;\n</code></pre>\n',
    );
  });

  it.each([
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<a href='javascript:alert(1)'>x</a>",
    "**<iframe src=//evil>**",
    '```<svg onload="x">\ny\n```',
  ])("shows HTML as text: %s", (markdown) => {
    const html = markdownHtml(markdown);
    expect(html).not.toMatch(/<(script|img|iframe|svg|a)\b/);
  });

  it.each([
    "javascript:alert(1)",
    "command:nosa.forgetRepository",
    "file:///etc/passwd",
    "data:text/html,x",
    "vscode://x",
  ])("makes no link of %s", (url) => {
    expect(markdownHtml(`[x](${url})`)).not.toContain("<a");
    expect(markdownHtml(`<${url}>`)).not.toContain("<a");
  });

  it("makes links to the web, and loads no image", () => {
    expect(markdownHtml("[x](https://example.org)")).toContain('<a href="https://example.org">');
    expect(markdownHtml("![x](https://example.org/a.png)")).not.toContain("<img");
  });

  it("shows a code block that is still being written", () => {
    expect(markdownHtml("Look:\n\n```py\nprint(")).toContain('<pre><code class="language-py">print(');
  });
});
