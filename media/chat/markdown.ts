import MarkdownIt from "markdown-it";

// What a model writes is untrusted: no HTML of its own, no image (it would load something), links to the web only.
const renderer = new MarkdownIt({ html: false, linkify: false, breaks: false }).disable("image");
renderer.validateLink = (url) => /^https?:\/\//i.test(url.trim());

/** Markdown of an answer → HTML that holds nothing but text, structure and links to the web. */
export function markdownHtml(markdown: string): string {
  return renderer.render(markdown);
}
