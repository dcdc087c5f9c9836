/** A block of code in an answer. */
export interface CodeBlock {
  readonly code: string;
  /** As the fence names it, such as "ts"; "" for none. */
  readonly language: string;
  /** Path the answer gives for it, in the fence, the line above it, or a comment on its first line; "" for none. */
  readonly path: string;
}

/** The fenced blocks of a markdown text, in order. A block that is not closed counts: answers get cut. */
export function codeBlocks(markdown: string): readonly CodeBlock[] {
  const blocks: CodeBlock[] = [];
  let above = "";
  let open:
    { readonly fence: string; readonly info: string; readonly above: string; readonly lines: string[] } | undefined;
  for (const line of markdown.split("\n")) {
    if (open === undefined) {
      const opened = /^ {0,3}(`{3,}|~{3,})\s*([^`]*)$/.exec(line);
      if (opened !== null) open = { fence: opened[1] ?? "", info: (opened[2] ?? "").trim(), above, lines: [] };
      else if (line.trim() !== "") above = line;
      continue;
    }
    const closed = line.trim();
    if (closed.startsWith(open.fence) && closed.replaceAll(open.fence.charAt(0), "") === "") {
      blocks.push(blockOf(open.info, open.above, open.lines));
      open = undefined;
      above = "";
    } else open.lines.push(line);
  }
  if (open !== undefined && open.lines.length > 0) blocks.push(blockOf(open.info, open.above, open.lines));
  return blocks;
}

function blockOf(info: string, above: string, lines: readonly string[]): CodeBlock {
  const [language = "", ...rest] = info.split(/[\s:]+/);
  const inFence = pathIn(rest.join(" "));
  const inComment = pathIn(/^\s*(?:\/\/|#|--|<!--|\/\*)\s*(\S+)/.exec(lines[0] ?? "")?.[1] ?? "");
  return { code: lines.join("\n"), language, path: inFence || inComment || pathIn(above) };
}

/** "src/fees.ts" or "`fees.ts`:"; "" where there is none or more than one. */
function pathIn(text: string): string {
  const found = text.match(/[\w@.-]+(?:\/[\w@.-]+)*\.[A-Za-z]\w{0,9}\b/g) ?? [];
  return new Set(found).size === 1 ? (found[0] ?? "") : "";
}

/** Languages in which nothing is applied to a file: output, commands, changes. */
const notForFiles: ReadonlySet<string> = new Set(["diff", "patch", "console", "text", "plaintext", "output"]);

export function isApplicable({ code, language }: CodeBlock): boolean {
  return code.trim() !== "" && !notForFiles.has(language.toLowerCase());
}
